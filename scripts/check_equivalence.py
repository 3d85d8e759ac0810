"""Rewrites that must pass and near misses that must fail, made from real gold answers, by class; beside Math-Verify alone.

    python scripts/check_equivalence.py [--data ../shared/data] [--show]      rewrites of MATH-500, GSM8K and AMC
    python scripts/check_equivalence.py --pairs PAIRS.jsonl [--show]     labelled pairs: {"gold", "answer", "equal", "class"?}

Every rewrite is string surgery whose outcome is known: a fraction extended by 3, a root with its factor drawn in, an
interval as an inequality, a near miss by one sign, digit, bracket or unit. A timeout counts as "not equal".
"""

import argparse
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from math_verify import parse, verify

from r1distill.problems import short_answer
from r1distill.records import Problem
from r1distill.verify import VerifierPool

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = {"math500/test.jsonl": "answer", "gsm8k/test.jsonl": "answer", "amc23/test.jsonl": "answer"}
LESS_OR_EQUAL, NEW_ROW = r"\le", r" \\ "
NAMES = ("Evelyn", "Navin", "Wednesday", "ellipse", "even", "Karla", "isosceles", "west")
Pair = tuple[str, str, str, bool]  # class, gold, answer, whether they are equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--show", action="store_true", help="print every pair that is decided wrongly")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="do not run Math-Verify beside it")
    options = parser.parse_args()
    pairs = list(read_pairs(options.pairs)) if options.pairs else sorted(set(made_from(options.data)))
    if not pairs:
        sys.exit(f"no gold answers: {options.data} has none of {', '.join(FILES)}; name the folder with --data")
    started = time.perf_counter()
    ours = ours_say(pairs, options.workers)
    took = time.perf_counter() - started
    started = time.perf_counter()
    theirs = None if options.alone else [math_verify_says(gold, answer) for _, gold, answer, _ in pairs]
    theirs_took = time.perf_counter() - started
    table(pairs, ours, theirs, options.show)
    print(f"\nours {len(pairs) / took:.0f} pairs a second", end="")
    print("" if theirs is None else f", Math-Verify {len(pairs) / theirs_took:.0f}")


def read_pairs(path: Path) -> Iterator[Pair]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        yield row.get("class", "pairs"), str(row["gold"]), str(row["answer"]), bool(row["equal"])


def ours_say(pairs: list[Pair], workers: int) -> list[bool]:
    with VerifierPool(workers, 10.0) as pool:
        items = ((Problem("", answer=gold), 0, rf"\boxed{{{answer}}}") for _, gold, answer, _ in pairs)
        return [verdict.outcome == "correct" for verdict in pool.verify_many(items)]


def math_verify_says(gold: str, answer: str) -> bool:
    try:
        return verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))
    except Exception:  # it raises of every kind; that is not equal
        return False


def table(pairs: list[Pair], ours: list[bool], theirs: list[bool] | None, show: bool) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index, ((kind, gold, answer, equal), mine) in enumerate(zip(pairs, ours, strict=True)):
        row = counts[kind]
        row["equal" if equal else "different"] += 1
        row["false negatives"] += equal and not mine
        row["false positives"] += mine and not equal
        if theirs is not None:
            row["their false negatives"] += equal and not theirs[index]
            row["their false positives"] += theirs[index] and not equal
        if show and mine != equal:
            print(f"{'false positive' if mine else 'false negative'}  {kind:12} {gold}   |   {answer}")
    print(f"{'class':24} {'equal':>6} {'missed':>7} {'(M-V)':>6} {'different':>10} {'passed':>7} {'(M-V)':>6}")
    total: Counter[str] = Counter()
    for kind, row in [*sorted(counts.items()), ("all", total)]:
        if kind != "all":
            total.update(row)
        print(
            f"{kind:24} {row['equal']:6} {row['false negatives']:7} {row['their false negatives']:6} "
            f"{row['different']:10} {row['false positives']:7} {row['their false positives']:6}"
        )
    right = sum(mine == pair[3] for mine, pair in zip(ours, pairs, strict=True))
    line = f"right: ours {right / len(pairs):.2%}"
    if theirs is not None:
        line += f", Math-Verify {sum(one == pair[3] for one, pair in zip(theirs, pairs, strict=True)) / len(pairs):.2%}"
    print(line)


# ---------------------------------------------------------------- rewrites


def made_from(data: Path) -> Iterator[Pair]:
    for name, column in FILES.items():
        path = data / name
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            gold = short_answer(str(json.loads(line)[column]))
            for kind, make in CLASSES.items():
                yield from ((kind, gold, answer, equal) for answer, equal in make(gold))
            yield from (("units", *pair) for pair in units(gold))


Variants = Iterator[tuple[str, bool]]


def numbers(gold: str) -> Variants:
    if not re.fullmatch(r"-?\d{1,15}", gold):
        return
    n = int(gold)
    yield f"{n:,}", True
    yield f"{n}.0", True
    yield f"${n}$", True
    yield f"x = {n}", True
    yield rf"\text{{{n}}}", True
    yield rf"{n - 7} + 7", True
    yield rf"\frac{{{3 * n}}}{{3}}", True
    yield rf"{n}\%" if n >= 1 else f"{n}.", True
    yield rf"{n} \text{{ units}}", True
    if n and n % 100 == 0:
        yield rf"{n // 100} \times 10^2", True
    yield f"{n + 1}", False
    yield f"{-n}" if n else "1", False
    yield f"{n}0" if n else "10", False
    yield f"{n}.1", False
    yield rf"\frac{{1}}{{{n}}}" if abs(n) > 1 else "2", False
    if len(set(gold)) > 1 and gold[::-1].lstrip("0") != gold and n > 0:
        yield gold[::-1], False


def fractions(gold: str) -> Variants:
    match = re.fullmatch(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", gold)
    if not match:
        return
    sign, top, bottom = match[1], int(match[2]), int(match[3])
    value = Fraction(top, bottom)
    yield f"{sign}{top}/{bottom}", True
    yield rf"{sign}\dfrac{{{3 * top}}}{{{3 * bottom}}}", True
    yield rf"\left({sign}\tfrac{{{top}}}{{{bottom}}}\right)", True
    yield rf"{sign}{top} \div {bottom}", True
    if top > bottom and top % bottom:
        yield rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}", True
        yield rf"{sign}\frac{{{top // bottom}{top % bottom}}}{{{bottom}}}", top // bottom * 10 + top % bottom == top
    if value.denominator in (2, 4, 5, 8, 10, 20, 25):
        yield f"{sign}{float(value)}", True
        yield f"{sign}{float(value) * 100:g}\\%", True
    yield rf"{sign}\frac{{{bottom}}}{{{top}}}", top == bottom
    yield rf"{sign}\frac{{{top + 1}}}{{{bottom}}}", False
    yield rf"{sign}\frac{{{top}}}{{{bottom + 1}}}", False
    yield rf"{'' if sign else '-'}\frac{{{top}}}{{{bottom}}}", False
    yield f"{sign}{float(value):.1f}", Fraction(f"{float(value):.1f}") == value


def radicals(gold: str) -> Variants:
    match = re.fullmatch(r"(\d*)\\sqrt\{(\d+)\}", gold)
    if not match:
        return
    factor, inside = int(match[1] or 1), int(match[2])
    yield rf"\sqrt{{{factor**2 * inside}}}", True
    yield rf"{factor}\cdot\sqrt{{{inside}}}", True
    yield f"{factor}*sqrt({inside})", True
    yield f"{factor}√{inside}", True
    yield rf"{factor}\cdot {inside}^{{1/2}}", True
    yield rf"\frac{{{factor * inside}}}{{\sqrt{{{inside}}}}}", True
    yield rf"\sqrt{{{factor * inside}}}", factor == 1
    yield rf"{factor + 1}\sqrt{{{inside}}}", False
    yield rf"{factor}\sqrt{{{inside + 1}}}", False
    yield rf"{factor}\sqrt[3]{{{inside}}}", inside == 1
    yield rf"-{factor}\sqrt{{{inside}}}", False
    yield f"{factor * inside**0.5:.1f}", False


def intervals(gold: str) -> Variants:
    match = re.fullmatch(r"([(\[])([^,()\[\]]+),([^,()\[\]]+)([)\]])", gold)
    if not match or not ("infty" in gold or "[" in gold or "]" in gold):
        return
    opening, low, high, closing = match.groups()
    first = "" if "infty" in low else f"{low} {'<' if opening == '(' else LESS_OR_EQUAL} "
    second = "" if "infty" in high else f" {'<' if closing == ')' else LESS_OR_EQUAL} {high}"
    if first or second:
        yield f"{first}x{second}", True
    yield rf"x \in \left{opening}{low}, {high}\right{closing}", True
    if "infty" not in low:
        yield f"{'[' if opening == '(' else '('}{low},{high}{closing}", False
        yield f"{opening}{low}+1,{high}{closing}", False
    if "infty" not in high:
        yield f"{opening}{low},{high}{')' if closing == ']' else ']'}", False
    yield rf"{opening}{low},{high}{closing} \cup \{{1000\}}", "infty" in high


def tuples(gold: str) -> Variants:
    match = re.fullmatch(r"(?:\\left)?\(([^()\[\]]+)\\?(?:right)?\)", gold.replace(" ", ""))
    if not match or "infty" in gold or "," not in gold:
        return
    parts = match[1].split(",")
    yield rf"\left( {', '.join(parts)} \right)", True
    yield f"({','.join(f'{part} + 0' for part in parts)})", True
    yield rf"\begin{{pmatrix}} {NEW_ROW.join(parts)} \end{{pmatrix}}", True
    if parts[::-1] != parts:
        yield f"({','.join(parts[::-1])})", False
    yield f"({','.join([*parts[:-1], parts[-1] + '+1'])})", False
    yield f"({','.join([*parts, '0'])})", False


def sets(gold: str) -> Variants:
    parts = [part.strip() for part in gold.split(",")]
    if len(parts) < 2 or not all(
        re.fullmatch(r"-?(?:\d+|\\frac\{\d+\}\{\d+\}|\d*\\sqrt\{\d+\})", part) for part in parts
    ):
        return
    if len(set(parts)) < len(parts) or all(len(part) == 3 for part in parts[1:]):
        return
    yield ", ".join(parts[::-1]), True
    yield rf"\{{{', '.join(parts)}\}}", True
    yield " and ".join(parts), True
    yield r" \text{ or } ".join(f"x = {part}" for part in parts), True
    yield ", ".join(parts[:-1]), False
    yield ", ".join([*parts, "977"]), False
    yield ", ".join([*parts[:-1], f"{parts[-1]} + 1"]), False


def matrices(gold: str) -> Variants:
    match = re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", gold.replace("\n", " "))
    if not match:
        return
    rows = [[cell.strip() for cell in row.split("&")] for row in match[1].split(r"\\")]
    inside = r" \\ ".join(" & ".join(row) for row in rows)
    yield rf"\begin{{bmatrix}} {inside} \end{{bmatrix}}", True
    yield rf"\left( \begin{{array}}{{{'c' * len(rows[0])}}} {inside} \end{{array}} \right)", True
    changed = [[*row] for row in rows]
    changed[-1][-1] = f"{changed[-1][-1]} + 1"
    yield rf"\begin{{pmatrix}} {NEW_ROW.join(' & '.join(row) for row in changed)} \end{{pmatrix}}", False
    turned = [list(column) for column in zip(*rows, strict=True)]
    if turned != rows and len(rows) > 1 and len(rows[0]) > 1:
        yield rf"\begin{{pmatrix}} {NEW_ROW.join(' & '.join(row) for row in turned)} \end{{pmatrix}}", False


def units(number: str) -> Iterator[tuple[str, str, bool]]:
    """Of a number as a quantity: with its gold answer, which gets the unit too."""
    if not re.fullmatch(r"[2-9]\d{0,3}", number):
        return
    n = int(number)
    unit, other, factor, wrong = UNITS[n % len(UNITS)]
    gold = rf"{n} \text{{ {unit}}}"
    yield gold, number, True
    yield number, gold, True
    yield gold, rf"{n * factor}\ \mathrm{{{other}}}", True
    yield gold, f"{n} {unit}", True
    yield gold, rf"{n} \text{{ {wrong}}}", False
    yield gold, rf"{n} \text{{ {other}}}", False
    yield gold, rf"{n + 1} \text{{ {unit}}}", False


UNITS = (
    ("cm", "mm", 10, "cm^2"),
    ("km", "m", 1000, "kg"),
    ("hours", "minutes", 60, "days"),
    ("kg", "g", 1000, "km"),
    ("dollars", "cents", 100, "euros"),
    ("m^2", "cm^2", 10_000, "m^3"),
)


def degrees(gold: str) -> Variants:
    match = re.fullmatch(r"(\d+)(?:\^\\circ|\^\{\\circ\})", gold)
    if not match:
        return
    n = int(match[1])
    yield f"{n}", True
    yield f"{n}°", True
    yield rf"{n} \text{{ degrees}}", True
    yield rf"\frac{{{n}\pi}}{{180}}", True
    yield rf"{n + 1}^\circ", False
    yield rf"\frac{{{n}\pi}}{{90}}", False


def bases(gold: str) -> Variants:
    match = re.fullmatch(r"(\d+)_\{?(\d)\}?", gold)
    if not match:
        return
    digits, base = match[1], int(match[2])
    yield rf"{digits}_{{{base}}}", True
    yield rf"{digits} \text{{ (base {base})}}", True
    yield digits, True
    yield f"{digits}_{base + 1}", False
    yield f"{digits}1_{base}", False
    yield f"{digits[::-1]}_{base}", digits[::-1] == digits


def texts(gold: str) -> Variants:
    match = re.fullmatch(r"\\text\{([A-Za-z ]+)\}", gold)
    if not match:
        return
    yield match[1], True
    yield f"**{match[1]}**", True
    yield rf"\textbf{{{match[1].lower()}}}", True
    for name in NAMES:
        if name.lower() != match[1].lower().strip():
            yield rf"\text{{{name}}}", False


def expressions(gold: str) -> Variants:
    if not re.fullmatch(r"[-+]?(?:\d*[a-z](?:\^\{?\d\}?)?|\d+)(?:\s*[-+]\s*(?:\d*[a-z](?:\^\{?\d\}?)?|\d+))+", gold):
        return
    terms = re.findall(r"[-+]?\s*[^-+]+", gold.replace(" ", ""))
    signed = [term if term[0] in "+-" else f"+{term}" for term in terms]
    yield "".join(signed[::-1]).lstrip("+"), True
    yield f"({gold})", True
    yield rf"2\left(\frac{{{gold}}}{{2}}\right)", True
    yield "".join([*signed[:-1], ("-" if signed[-1][0] == "+" else "+") + signed[-1][1:]]).lstrip("+"), False
    yield f"{gold} + 1", False
    yield f"-({gold})", False


CLASSES: dict[str, Callable[[str], Any]] = {
    "numbers": numbers,
    "fractions": fractions,
    "radicals": radicals,
    "intervals": intervals,
    "tuples": tuples,
    "sets": sets,
    "matrices": matrices,
    "degrees": degrees,
    "bases": bases,
    "text": texts,
    "expressions": expressions,
}

if __name__ == "__main__":
    main()
