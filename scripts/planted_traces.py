"""Reasoning traces that are clean, and traces with one known fault: loops, mixed languages, malformed replies.

Made from worked solutions (GSM8K, MATH-500) where there are some, else from sentences below. Clean ones repeat what real ones
repeat: cases, tables, restated problems, checks, programs written twice. scripts/check_tags.py and tests/test_tags.py use it.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r1distill.problems import short_answer
from r1distill.prompting import split_thinking
from r1distill.records import FinishReason, Problem, Trace

FILES = ("gsm8k/train.jsonl", "gsm8k/test.jsonl", "math500/test.jsonl")
CALCULATION = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator


@dataclass(frozen=True, slots=True)
class Planted:
    """`kind` is what was planted ("clean …" for nothing), `expected` the word that a malformed one has to get."""

    kind: str
    problem: Problem
    trace: Trace
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Worked:
    problem: str
    solution: str
    answer: str


def worked_solutions(data: Path | None) -> list[Worked]:
    """Those of the data sets in the folder `data`; made ones where it has none."""
    found = []
    for name in FILES if data else ():
        path = data / name if data else Path()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            answer = short_answer(str(row["answer"]))
            solution = CALCULATION.sub("", str(row.get("solution") or row["answer"])).partition("####")[0].strip()
            found.append(Worked(str(row.get("problem") or row.get("question")), solution, answer))
    return found or [made_solution(random.Random(seed)) for seed in range(400)]


def made_solution(draw: random.Random) -> Worked:
    a, b, c = (draw.randint(2, 90) for _ in range(3))
    name, other, thing = draw.choice(NAMES), draw.choice(NAMES), draw.choice(THINGS)
    problem = (
        f"{name} has {a} boxes with {b} {thing} in each of them. {other} brings {c} more {thing} in the afternoon. "
        f"How many {thing} are there in the evening, if none of them gets lost?"
    )
    lines = [
        f"First we find out how many {thing} are in the boxes, which is {a} times {b}.",
        f"The product of {a} and {b} is {a * b}, so {name} has {a * b} {thing} to begin with.",
        f"Then {other} brings {c} more, so that we have to add {c} to {a * b}.",
        f"This gives {a * b} + {c} = {a * b + c} {thing} in the evening.",
    ]
    return Worked(problem, "\n".join(lines), str(a * b + c))


NAMES = "Ann Boris Chloe Dmitri Elena Farid Greta Hiro Ines Jonas Keiko Liam Mona Nadia Omar Priya".split()
THINGS = "apples marbles pencils stamps coins tickets bottles candles stickers postcards".split()
OPENINGS = (
    "Okay, so I need to figure out this problem. Let me read it again: {problem}",
    "Alright, let me think about this step by step. The question says: {problem}",
    "Let me see. {problem} That is what is asked, so let me write down what I know.",
    "Hmm, this looks like a problem where I have to be careful with the wording.",
)
TURNS = (
    "Wait, let me check that again.",
    "Hmm, is that right? Let me double-check the arithmetic.",
    "Wait, no, I should be careful here, because the order of the steps matters.",
    "Let me verify this with another method.",
    "Alternatively, I could think of it like this.",
    "So that seems to be consistent with what I found before.",
    "But hold on, did I read the question correctly?",
    "Okay, that makes sense. Let me go on with the next part.",
    "I think that this is correct, but let me make sure that I did not miss anything.",
)


# ---------------------------------------------------------------- clean


def clean_parts(draw: random.Random, worked: list[Worked], own: Worked) -> list[str]:
    """Paragraphs of some ten to some thousand words together, with repetition of every legitimate kind."""
    parts = [draw.choice(OPENINGS).replace("{problem}", own.problem), own.solution]
    of_its_own = [once_more, once_more, restated, restated]  # not more often: that would be a loop
    for _ in range(min(int(draw.paretovariate(1.1)), 30) if draw.random() < 0.8 else 0):
        make = draw.choice((*REPEATS, *of_its_own, another, another, another))
        if make in of_its_own:
            of_its_own.remove(make)
        parts += [draw.choice(TURNS), make(draw, worked, own)]
    return [*parts, f"So the answer should be {own.answer}."]


def clean_thinking(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    return draw.choice(("\n\n", "\n", " ")).join(clean_parts(draw, worked, own))


def another(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    return draw.choice(worked).solution


def once_more(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    return own.solution


def restated(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    return f"The problem says: {own.problem} {draw.choice(TURNS)}"


def cases(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    a, b, m = draw.randint(2, 9), draw.randint(1, 9), draw.randint(3, 13)
    template = draw.choice(
        (
            "If n = {n}, then {a}n + {b} = {v}, and {v} mod {m} = {r}.",
            "Case n = {n}: {a} * {n} + {b} = {v}. {v} divided by {m} leaves {r}, {yes}.",
            "- n={n}: {v} -> remainder {r}",
            "For n = {n}, we get {a}({n}) + {b} = {v}, which {is_not} a multiple of {m}.",
        )
    )
    return "\n".join(
        template.format(
            n=n, a=a, b=b, m=m, v=(v := a * n + b), r=(r := v % m),
            yes="so this works" if not r else "so no", is_not="is" if not r else "is not",
        )
        for n in range(1, draw.randint(4, 30))
    )  # fmt: skip


def table(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    columns = draw.randint(2, 6)
    rows = [[draw.randint(0, draw.choice((1, 9, 200))) for _ in range(columns)] for _ in range(draw.randint(3, 14))]
    head = f"| {' | '.join('xyzuvw'[:columns])} |\n|{'---|' * columns}"
    return "\n".join([head, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def truth_table(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    n = draw.randint(2, 4)
    rows = [[row >> bit & 1 for bit in reversed(range(n))] for row in range(2**n)]
    return "\n".join(" ".join(map(str, [*row, draw.randint(0, 1)])) for row in rows)


def long_division(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    x, lines = draw.randint(10**5, 10**8), []
    while x:
        lines.append(f"{x} / 7 = {x // 7} remainder {x % 7}")
        x //= 7
    return "\n".join(lines)


def long_sum(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    term = draw.choice(("1", "2", r"\frac{1}{2}", "x"))
    return f"${' + '.join([term] * draw.randint(3, 14))}$"


def program_twice(draw: random.Random, worked: list[Worked], own: Worked) -> str:
    lines = [f"def solve_{draw.randint(1, 99)}(values):", "    total = 0"]
    for _ in range(draw.randint(2, 12)):
        name, n = draw.choice("abcdef"), draw.randint(2, 99)
        lines += [f"    for {name} in range({n}):", f"        total += values[{name}] * {draw.randint(2, 99)}"]
    program = "\n".join([*lines, "    return total"])
    change = program.replace("total = 0", f"total = {draw.randint(1, 9)}")
    return f"```python\n{program}\n```\n\nWait, the start is wrong. Let me write it again:\n\n```python\n{change}\n```"


REPEATS = (cases, table, truth_table, long_division, long_sum, program_twice)


def clean(draw: random.Random, worked: list[Worked]) -> Planted:
    if draw.random() < 0.05:
        return chinese(draw)
    own = draw.choice(worked)
    answer = f"{own.solution}\n\nThe answer is \\boxed{{{own.answer}}}."
    return planted("clean", own, clean_thinking(draw, worked, own), answer)


def planted(
    kind: str, own: Worked, thinking: str, answer: str, finish_reason: FinishReason = "stop", expected: str = ""
) -> Planted:
    """With an empty answer the reply is cut off in its thinking."""
    text = f"<think>\n{thinking}\n</think>\n\n{answer}" if answer else f"<think>\n{thinking}"
    return of_text(kind, own, text, finish_reason, expected)


def of_text(kind: str, own: Worked, text: str, finish_reason: FinishReason = "stop", expected: str = "") -> Planted:
    problem = Problem(own.problem, answer=own.answer, source="planted")
    thinking, answer = split_thinking(text)
    trace = Trace(problem.id, 0, "planted", "", 0, text, thinking, answer, finish_reason, n_tokens=len(text) // 4)
    return Planted(kind, problem, trace, expected)


# ---------------------------------------------------------------- loops


def loops(draw: random.Random, worked: list[Worked], n: int) -> Iterator[Planted]:
    """Of each kind as many, half of them at the end of a reply that was cut off, half in the middle of one that ends."""
    kinds = list(LOOPS.items())
    for index in range(n):
        name, make = kinds[index % len(kinds)]
        own = draw.choice(worked)
        loop = ""
        while len(loop.split()) < 60 and len(loop) < 400:
            loop = make(draw, worked)
        before = clean_thinking(draw, worked, own)
        if index // len(kinds) % 2:
            yield planted(f"{name}, at the end", own, f"{before}\n{loop[: -draw.randint(1, 9)]}", "", "length")
        else:
            after = clean_thinking(draw, worked, own)
            answer = f"The answer is \\boxed{{{own.answer}}}."
            yield planted(f"{name}, in the middle", own, f"{before}\n{loop}\n{after}", answer)


def sentences(draw: random.Random, worked: list[Worked]) -> list[str]:
    own = draw.choice(worked).solution.replace("\n", " ")
    found = [part.strip() + "." for part in re.split(r"[.!?]\s", own) if 5 <= len(part.split()) <= 30]
    return [*found, *draw.sample(TURNS, 4)]


def rounds(draw: random.Random, words: int) -> int:
    """Such that a loop is from 60 to some 1,500 words."""
    return max(5, int(60 * 25 ** draw.random() / max(words, 1)))


def exact_block(draw: random.Random, worked: list[Worked]) -> str:
    block = " ".join(draw.choices(sentences(draw, worked), k=draw.randint(2, 5)))
    return f"{block}\n" * rounds(draw, len(block.split()))


def one_sentence(draw: random.Random, worked: list[Worked]) -> str:
    block = draw.choice(sentences(draw, worked))
    return f"{block} " * rounds(draw, len(block.split()))


def block_with_counter(draw: random.Random, worked: list[Worked]) -> str:
    block = " ".join(draw.sample(sentences(draw, worked), 2))
    template = draw.choice(("Step {n}: {block}", "Attempt {n}. {block} That was attempt {n}.", "{n}. {block}"))
    first = draw.randint(1, 40)
    return "\n".join(
        template.format(n=n, block=block) for n in range(first, first + rounds(draw, len(block.split()) + 2))
    )


def two_in_turn(draw: random.Random, worked: list[Worked]) -> str:
    one, two = draw.sample(sentences(draw, worked), 2)
    return f"{one} {two} " * rounds(draw, len(f"{one} {two}".split()))


def shuffled_sentences(draw: random.Random, worked: list[Worked]) -> str:
    pool = draw.sample(sentences(draw, worked), draw.randint(3, 4))
    size = sum(len(each.split()) for each in pool) / len(pool)
    return " ".join(draw.choices(pool, k=max(14, rounds(draw, int(size)))))


def with_noise(draw: random.Random, worked: list[Worked]) -> str:
    """One word in thirty is another one."""
    words = exact_block(draw, worked).split()
    return " ".join(draw.choice(THINGS) if draw.random() < 1 / 30 else word for word in words)


def one_word(draw: random.Random, worked: list[Worked]) -> str:
    return (draw.choice(("the", "no", "0", "and so", "Wait.", r"\quad", "= 1")) + " ") * draw.randint(80, 900)


def without_spaces(draw: random.Random, worked: list[Worked]) -> str:
    unit = draw.choice(("0", "3", "哈", "ab", r"\quad", "!", r"\frac{1}{2}+", "-", "142857"))
    return unit * draw.randint(2_000 // len(unit), 6_000 // len(unit))


LOOPS: dict[str, Callable[[random.Random, list[Worked]], str]] = {
    "exact block": exact_block,
    "one sentence": one_sentence,
    "block with a counter": block_with_counter,
    "two sentences in turn": two_in_turn,
    "shuffled sentences": shuffled_sentences,
    "block with noise": with_noise,
    "one word": one_word,
    "without spaces": without_spaces,
}


# ---------------------------------------------------------------- languages

PASSAGES = {
    "zh": (
        "所以我们需要先求出每个盒子里有多少个苹果，再把它们加起来。",
        "等等，让我再检查一下这个结果是不是正确的。",
        "根据题目的条件，这个数一定是{a}的倍数，因此答案应该是{b}。",
        "换一种方法来考虑，我们可以先计算总数，然后减去多余的部分。",
        "首先设未知数为x，那么方程可以写成{a}x加{b}等于{c}。",
    ),
    "ja": (
        "したがって、まず箱の中にいくつのりんごがあるかを求める必要があります。",
        "待って、この計算が正しいかどうかもう一度確認しましょう。",
        "問題の条件から、この数は{a}の倍数でなければならないので、答えは{b}になるはずです。",
        "別の方法で考えると、まず合計を計算してから余分な部分を引けばよい。",
        "まず未知数をxとすると、方程式は{a}xと{b}の和が{c}に等しいと書けます。",
    ),
    "ru": (
        "Значит, сначала нужно найти, сколько яблок лежит в каждой коробке, и сложить их.",
        "Подождите, давайте ещё раз проверим, правильно ли это вычислено.",
        "По условию задачи это число делится на {a}, поэтому ответ должен быть равен {b}.",
        "Можно рассуждать иначе: сначала вычислим общее количество, а потом вычтем лишнее.",
        "Пусть неизвестное равно x, тогда уравнение можно записать так: {a}x плюс {b} равно {c}.",
    ),
    "es": (
        "Entonces primero tenemos que encontrar cuántas manzanas hay en cada caja y sumarlas todas.",
        "Espera, vamos a comprobar otra vez si este resultado es correcto.",
        "Según las condiciones del problema, este número es múltiplo de {a}, así que la respuesta debe ser {b}.",
        "También podemos pensarlo de otra manera: calculamos el total y después restamos lo que sobra.",
        "Sea x la incógnita; la ecuación se puede escribir como {a} por x más {b} es igual a {c}.",
    ),
    "fr": (
        "Il faut donc d'abord trouver combien de pommes il y a dans chaque boîte et les additionner.",
        "Attends, vérifions encore une fois que ce résultat est bien correct.",
        "D'après l'énoncé, ce nombre est un multiple de {a}, donc la réponse doit être {b}.",
        "On peut aussi raisonner autrement : on calcule le total, puis on retire ce qui est en trop.",
        "Soit x l'inconnue ; l'équation peut s'écrire {a} fois x plus {b} est égal à {c}.",
    ),
}
CHINESE_PROBLEMS = (
    "小明有{a}个苹果，小红给了他{b}个苹果，后来他又吃掉了{c}个。请问小明现在还有多少个苹果？",
    "一个长方形的长是{a}厘米，宽是{b}厘米。把它的周长加上{c}厘米，结果是多少厘米？",
    "已知函数f(x)={a}x+{b}，求f({c})的值。",
)


def numbered(draw: random.Random, text: str) -> str:
    for name in "abc":
        text = text.replace(f"{{{name}}}", str(draw.randint(2, 99)))
    return text


def passage(draw: random.Random, language: str, n: int) -> str:
    return " ".join(numbered(draw, text) for text in draw.sample(PASSAGES[language], n))


def chinese(draw: random.Random, kind: str = "clean, all Chinese") -> Planted:
    own = Worked(numbered(draw, draw.choice(CHINESE_PROBLEMS)), "", str(draw.randint(1, 99)))
    thinking = "".join(passage(draw, "zh", 5) for _ in range(draw.randint(1, 3)))
    return planted(kind, own, thinking, f"答案是 $\\boxed{{{own.answer}}}$。")


def mixed(draw: random.Random, worked: list[Worked], n: int) -> Iterator[Planted]:
    """Passages of one to four sentences within English; thinking that goes over to the other language; one in ten is an
    English passage in Chinese thinking on a Chinese problem.
    """
    languages = list(PASSAGES)
    for index in range(n):
        if index % 10 == 9:
            whole = chinese(draw)
            thinking = f"{whole.trace.thinking}\n{' '.join(draw.sample(TURNS, 4))}\n{passage(draw, 'zh', 4)}"
            own = Worked(whole.problem.problem, "", str(whole.problem.answer))
            yield planted("English in Chinese", own, thinking, whole.trace.answer)
            continue
        language = languages[index % len(languages)]
        own = draw.choice(worked)
        parts = clean_parts(draw, worked, own)
        at = draw.randint(1, len(parts))
        answer = f"The answer is \\boxed{{{own.answer}}}."
        if draw.random() < 0.3:
            parts[at:] = [passage(draw, language, 5)]
            yield planted(f"goes over to {language}", own, "\n".join(parts), answer)
        else:
            sentence_count = draw.randint(1, 4)
            parts.insert(at, passage(draw, language, sentence_count))
            joint = draw.choice((" ", "\n"))
            yield planted(f"{language}, {'one sentence' if sentence_count == 1 else 'some sentences'}", own,
                          joint.join(parts), answer)  # fmt: skip


# ---------------------------------------------------------------- malformed


def malformed(draw: random.Random, worked: list[Worked], n: int) -> Iterator[Planted]:
    kinds = list(MALFORMED.items())
    for index in range(n):
        kind, make = kinds[index % len(kinds)]
        own = draw.choice(worked)
        text = make(draw, clean_thinking(draw, worked, own), f"The answer is \\boxed{{{own.answer}}}.")
        yield of_text(f"malformed: {kind}", own, text, expected=kind.partition(":")[0])


MALFORMED: dict[str, Callable[[random.Random, str, str], str]] = {
    "no_thinking": lambda draw, thinking, answer: f"{thinking}\n\n{answer}",
    "unopened": lambda draw, thinking, answer: f"{thinking}\n</think>\n\n{answer}",
    "unclosed": lambda draw, thinking, answer: f"<think>\n{thinking}\n\n{answer}",
    "several: two thoughts": lambda draw, thinking, answer: (
        f"<think>\n{thinking}\n</think>\n\n<think>\nWait.\n</think>\n\n{answer}"
    ),
    "several: closed twice": lambda draw, thinking, answer: f"<think>\n{thinking}\n</think>\n</think>\n\n{answer}",
    "out_of_order": lambda draw, thinking, answer: f"</think>\n{thinking}\n<think>\n\n{answer}",
    "text_before": lambda draw, thinking, answer: f"Sure!\n<think>\n{thinking}\n</think>\n\n{answer}",
    "empty_thinking": lambda draw, thinking, answer: f"<think>\n\n</think>\n\n{answer}",
    "no_answer": lambda draw, thinking, answer: f"<think>\n{thinking}\n{answer}\n</think>\n",
    "other_tags": lambda draw, thinking, answer: draw.choice(
        ("<thinking>\n{}\n</thinking>\n\n", "<|begin_of_thought|>\n{}\n<|end_of_thought|>\n\n", "[THINK]{}[/THINK]")
    ).format(thinking.replace("{", "").replace("}", "")) + answer,
    "special_token": lambda draw, thinking, answer: (
        f"<think>\n{thinking}\n{draw.choice(('<|im_start|>', '<｜User｜>', '<|reserved_special_token_7|>'))}\n</think>\n{answer}"
        if draw.random() < 0.5
        else f"<think>\n{thinking}\n</think>\n\n{answer}{draw.choice(('<|im_end|>', '<｜end▁of▁sentence｜>', '</s>'))}"
    ),
    "text_after_end: token": lambda draw, thinking, answer: (
        f"<think>\n{thinking}\n</think>\n\n{answer}<|im_end|>\n<|im_start|>user\nThank you!"
    ),
    "text_after_end: turn": lambda draw, thinking, answer: (
        f"<think>\n{thinking}\n</think>\n\n{answer}\n\n{draw.choice(('User', 'Human', '### Human'))}: And what is 2 + 2?"
    ),
    "broken_characters": lambda draw, thinking, answer: f"<think>\n{thinking} \ufffd\ufffd\n</think>\n\n{answer}",
    "empty": lambda draw, thinking, answer: draw.choice(("", "\n\n", "  ")),
}  # fmt: skip
