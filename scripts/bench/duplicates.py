"""CPU seconds and memory of the search for near duplicates: python scripts/bench/duplicates.py [NUMBER]

Nine tenths are random texts, one tenth repeats one of them with one other word. Each kind runs in a process of its own.
"""

import random
import resource
import subprocess
import sys
import time

from r1distill.duplicates import find_duplicates
from r1distill.records import Problem

KINDS = ("texts without numbers", "texts with numbers", "one template")


def text_of(kind: str, draw: random.Random, vocabulary: list[str]) -> list[str]:
    if kind == "one template":
        have, give = draw.randint(1, 10**6), draw.randint(1, 10**6)
        return (
            f"Tom has {have} apples and gives {give} of them to Ann. How many apples does Tom have in the end?".split()
        )
    words = draw.choices(vocabulary, k=draw.randint(20, 90))
    if kind == "texts with numbers":
        for _ in range(4):
            words.insert(draw.randrange(len(words)), str(draw.randint(1, 300)))
    return words


def measure(kind: str, number: int) -> None:
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5_000)]
    texts = [text_of(kind, draw, vocabulary) for _ in range(number - number // 10)]
    for words in texts[: number // 10]:
        place = draw.choice([place for place, word in enumerate(words) if word.isalpha()])
        texts.append([*words[:place], draw.choice(vocabulary), *words[place + 1 :]])
    problems = [Problem(" ".join(words), answer="1") for words in texts]
    started = time.process_time()
    found = find_duplicates(problems, lambda first, second: True)
    seconds = time.process_time() - started
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{kind:24}{number:>10,}{len(found):>10,}{seconds:>9.1f} s{gigabytes:>8.2f} GB", flush=True)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    if len(sys.argv) > 2:
        measure(sys.argv[2], number)
    else:
        print(f"{'':24}{'problems':>10}{'found':>10}{'CPU time':>11}{'memory':>11}", flush=True)
        for kind in KINDS:
            subprocess.run([sys.executable, __file__, str(number), kind], check=True)
