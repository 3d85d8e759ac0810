"""Long traces, and near copies of them: what check_contamination.py plants."""

import random
import re
from collections.abc import Callable


def relaid(words: list[str], draw: random.Random) -> list[str]:
    """Other case, other line ends, other marks of emphasis."""
    return [f"**{word.upper()}**\n" if draw.random() < 0.1 else word for word in words]


def with_changed_words(words: list[str], draw: random.Random) -> list[str]:
    """One word in a hundred another one."""
    changed = set(draw.sample(range(len(words)), max(1, len(words) // 100)))
    return [draw.choice(words) if place in changed else word for place, word in enumerate(words)]


def with_a_passage_more(words: list[str], draw: random.Random) -> list[str]:
    """A twentieth of it once more, elsewhere, with something said before."""
    place, length = draw.randrange(len(words)), max(1, len(words) // 20)
    return [
        *words[:place],
        "Wait,",
        "let",
        "me",
        "check",
        "that",
        "again:",
        *draw.choices(words, k=length),
        *words[place:],
    ]


def cut(words: list[str], draw: random.Random) -> list[str]:
    """Without its last tenth."""
    return words[: -max(1, len(words) // 10)]


def with_passages_exchanged(words: list[str], draw: random.Random) -> list[str]:
    """Its first third last."""
    return [*words[len(words) // 3 :], *words[: len(words) // 3]]


KINDS: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "other layout": relaid,
    "1 % of words": with_changed_words,
    "a passage more": with_a_passage_more,
    "last tenth cut off": cut,
    "passages exchanged": with_passages_exchanged,
}


def long_traces(texts: list[str], number: int, draw: random.Random) -> list[str]:
    """Traces of 5 to 40 solutions each, one after the other; no solution is in two traces more than by chance."""
    return [" ".join(draw.sample(texts, draw.randint(5, 40))) for _ in range(number)]


def near_copies(traces: list[str], of_each: int, draw: random.Random) -> list[tuple[str, int, str]]:
    """(kind, index of the trace, near copy), `of_each` a kind."""
    originals = iter(draw.sample(range(len(traces)), of_each * len(KINDS)))
    found = []
    for kind, change in KINDS.items():
        for _ in range(of_each):
            index = next(originals)
            found.append((kind, index, " ".join(change(traces[index].split(), draw))))
    return found


def templated_traces(number: int, draw: random.Random) -> list[str]:
    """Worked sums of one form, which differ in their numbers alone."""
    found = []
    for _ in range(number):
        steps, total = [], draw.randint(10, 99)
        for _ in range(8):
            more = draw.randint(10, 99)
            steps.append(f"Next I add {more} to {total}. The tens and the ones together make {total + more}.")
            total += more
        found.append(f"<think>\n{' '.join(steps)}\n</think>\n\nThe answer is {total}.")
    return found


def solutions(rows: list[dict[str, str]]) -> list[str]:
    """GSM8K's own, without its calculator's marks."""
    return [re.sub(r"<<.*?>>", "", row["answer"]) for row in rows]
