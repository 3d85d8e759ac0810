"""Write prompts/quickstart/train.jsonl and heldout.jsonl: the problems of the quickstart, each with its answer.

    python scripts/make_quickstart_problems.py            # rewrites both files, the same bytes every time

Three families that a 135M student can learn in minutes when the reasoning goes in small steps (tens and ones apart):
sums and differences below 100, and chickens and rabbits (heads and legs, 鸡兔同笼). No operands of a held-out problem
occur in a training problem, in either order. Worked solutions are made here too (`worked_solution`), but are only used
to train the quickstart teacher; the student sees nothing except what that teacher samples.
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 20260101
HELD_OUT_PER_FAMILY = 40
# sums are harder to learn: they carry, while the other two families never lend and share their steps
TRAIN = {"sum": 260, "difference": 140, "rabbits": 200}
FOLDER = Path(__file__).resolve().parents[1] / "prompts" / "quickstart"


@dataclass(frozen=True)
class Exercise:
    """One exercise: `first` and `second` are the operands, or the heads and the rabbits."""

    family: str  # sum | difference | rabbits
    first: int
    second: int

    @property
    def problem(self) -> str:
        if self.family == "sum":
            return f"What is {self.first} + {self.second}?"
        if self.family == "difference":
            return f"What is {self.first} - {self.second}?"
        return f"Chickens and rabbits in a cage: {self.first} heads, {self.legs} legs. How many rabbits?"

    @property
    def legs(self) -> int:
        return 2 * self.first + 2 * self.second

    @property
    def answer(self) -> str:
        if self.family == "sum":
            return str(self.first + self.second)
        if self.family == "difference":
            return str(self.first - self.second)
        return str(self.second)

    def record(self) -> dict[str, object]:
        return {
            "problem": self.problem,
            "kind": "math",
            "answer": self.answer,
            "source": f"quickstart/{self.family}",
            "license": "Apache-2.0",
        }


def tens_and_ones(number: int) -> tuple[int, int]:
    return number - number % 10, number % 10


def addition_steps(first: int, second: int) -> list[str]:
    """`first + second`, tens with tens and ones with ones."""
    first_tens, first_ones = tens_and_ones(first)
    second_tens, second_ones = tens_and_ones(second)
    return [
        f"{first_tens} + {second_tens} = {first_tens + second_tens}",
        f"{first_ones} + {second_ones} = {first_ones + second_ones}",
        f"{first_tens + second_tens} + {first_ones + second_ones} = {first + second}",
    ]


def subtraction_steps(first: int, second: int) -> list[str]:
    """`first - second` where no ten has to be lent: tens from tens and ones from ones."""
    first_tens, first_ones = tens_and_ones(first)
    second_tens, second_ones = tens_and_ones(second)
    return [
        f"{first_tens} - {second_tens} = {first_tens - second_tens}",
        f"{first_ones} - {second_ones} = {first_ones - second_ones}",
        f"{first_tens - second_tens} + {first_ones - second_ones} = {first - second}",
    ]


def halving_steps(number: int) -> list[str]:
    tens, ones = tens_and_ones(number)
    return [f"{tens} / 2 = {tens // 2}", f"{ones} / 2 = {ones // 2}", f"{tens // 2} + {ones // 2} = {number // 2}"]


def worked_solution(exercise: Exercise) -> str:
    """The reasoning between `<think>` and `</think>`, a step a line."""
    first, second = exercise.first, exercise.second
    if exercise.family == "sum":
        return "\n".join(addition_steps(first, second))
    if exercise.family == "difference":
        return "\n".join(subtraction_steps(first, second))
    # the method of 孙子算经: halve the legs, take away the heads
    half = exercise.legs // 2
    return "\n".join(
        [
            f"Half of {exercise.legs}:",
            *halving_steps(exercise.legs),
            f"{half} - {first}:",
            *subtraction_steps(half, first),
        ]
    )


def without_lending(first: int, second: int) -> bool:
    return first % 10 >= second % 10


def all_exercises(family: str) -> list[Exercise]:
    """Every exercise of a family, one for each set of operands."""
    if family == "sum":
        # each unordered pair once, in an order that varies, so that 23 + 41 and 41 + 23 cannot fall on both sides
        pairs = [(a, b) if (a + b) % 2 else (b, a) for a in range(11, 90) for b in range(a, 100 - a)]
    elif family == "difference":
        pairs = [(a, b) for a in range(21, 100) for b in range(11, a) if without_lending(a, b)]
    else:
        pairs = [
            (heads, half - heads)
            for half in range(12, 50)
            for heads in range(11, half)
            if without_lending(half, heads) and half - heads < heads
        ]
    return [Exercise(family, a, b) for a, b in pairs]


def split() -> tuple[list[Exercise], list[Exercise], list[Exercise]]:
    """Training, held-out, and the rest (which only the quickstart teacher is trained on), each shuffled."""
    shuffler = random.Random(SEED)
    train: list[Exercise] = []
    held_out: list[Exercise] = []
    rest: list[Exercise] = []
    for family in TRAIN:
        exercises = all_exercises(family)
        shuffler.shuffle(exercises)
        end_of_train = HELD_OUT_PER_FAMILY + TRAIN[family]
        held_out += exercises[:HELD_OUT_PER_FAMILY]
        train += exercises[HELD_OUT_PER_FAMILY:end_of_train]
        rest += exercises[end_of_train:]
    for part in (train, held_out, rest):
        shuffler.shuffle(part)
    return train, held_out, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder that receives both files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out, _ = split()
    for name, exercises in (("train", train), ("heldout", held_out)):
        lines = [json.dumps(exercise.record(), ensure_ascii=False) + "\n" for exercise in exercises]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"wrote {len(lines)} problems to {folder / name}.jsonl")


if __name__ == "__main__":
    main()
