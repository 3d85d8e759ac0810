"""CPU seconds and memory of finding dense regions, beside scikit-learn's DBSCAN: python scripts/bench/clusters.py [NUMBER ...]

Vectors of 64 dimensions and unit length, as the decomposition gives them: half of them in regions whose sizes fall off as
1 / rank, the others spread; `eps` is chosen by the k-distances. "one region": half of all vectors are in one, within eps of
each other, where scikit-learn holds every pair. Texts are of 80 words, half of them from templates. Each measurement runs in a
process of its own; scikit-learn's is left out where --limit seconds of the clock are not enough for it.
"""

import argparse
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable

import numpy as np

from r1distill.filter.clusters import choose_eps
from r1distill.filter.dbscan import dbscan
from r1distill.filter.embeddings import embed, unit
from r1distill.filter_sections import Clusters

DIMENSIONS, MIN_SAMPLES, SEED = 64, 5, 0
CASES = ("many regions", "one region", "texts")


def vectors_of(case: str, n: int) -> np.ndarray:
    draw = np.random.default_rng(SEED)
    spread = 1 / np.sqrt(1 + np.arange(DIMENSIONS))  # singular values fall off
    alone = draw.normal(size=(n - n // 2, DIMENSIONS)).astype(np.float32) * spread
    regions = 1 if case == "one region" else max(n // 200, 1)
    centres = unit(draw.normal(size=(regions, DIMENSIONS)) * spread)
    share = 1 / (1 + np.arange(regions))
    of_region = centres[draw.choice(regions, n // 2, p=share / share.sum())]
    width = 0.01 if case == "one region" else 0.03
    together = of_region + width * draw.normal(size=(n // 2, DIMENSIONS)).astype(np.float32)
    return unit(draw.permutation(np.concatenate([alone, together])).astype(np.float32))


def texts_of(n: int) -> list[str]:
    draw = np.random.default_rng(SEED)
    words = ["".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz"), draw.integers(3, 10))) for _ in range(20_000)]
    share = 1 / (1 + np.arange(len(words)))
    share /= share.sum()
    templates = [draw.choice(len(words), 80, p=share) for _ in range(200)]
    texts = []
    for number in range(n):
        chosen = draw.choice(len(words), 80, p=share) if number % 2 else templates[draw.integers(200)].copy()
        chosen[draw.integers(0, 80, 4)] = draw.integers(0, len(words), 4)
        texts.append(" ".join(words[place] for place in chosen))
    return texts


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def measure(case: str, who: str, n: int) -> None:
    if case == "texts":
        texts = texts_of(n)
        before = peak()
        vectors, seconds = timed(lambda: embed(iter(texts), Clusters(), SEED))
        print(f"{case:14}{n:>10,}  TF-IDF and SVD  {seconds:>9.1f} s{before:>8.2f} →{peak():>6.2f} GB", flush=True)
        return
    vectors = vectors_of(case, n)
    before = peak()
    # in one region every vector of it is within 0.3 of every other one
    eps = 0.3 if case == "one region" else choose_eps(vectors, MIN_SAMPLES, SEED)
    if who == "r1distill":
        labels, seconds = timed(lambda: dbscan(vectors, eps, MIN_SAMPLES)[0])
    else:
        cluster = __import__("sklearn.cluster", fromlist=["DBSCAN"])
        labels, seconds = timed(lambda: cluster.DBSCAN(eps=eps, min_samples=MIN_SAMPLES).fit(vectors).labels_)
    checksum = zlib.crc32(labels.astype(np.int64).tobytes())
    facts = f"eps {eps:.3f}, {labels.max() + 1:,} regions, {(labels < 0).mean():.0%} in none, labels {checksum:08x}"
    print(f"{case:14}{n:>10,}  {who:14}{seconds:>11.1f} s{before:>8.2f} →{peak():>6.2f} GB  {facts}", flush=True)


def peak() -> float:
    """The most memory this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=int, nargs="*", default=[10_000, 50_000])
    parser.add_argument("--limit", type=float, default=600, help="seconds that one measurement may take")
    parser.add_argument("--only", nargs=2, metavar=("CASE", "WHO"), help="one measurement, in this process")
    options = parser.parse_args()
    if options.only:
        measure(options.only[0], options.only[1], options.numbers[0])
        sys.exit()
    print(f"{'':14}{'number':>10}{'':16}{'CPU time':>13}{'memory before → peak':>23}", flush=True)
    for number in options.numbers:
        for case in CASES:
            for who in ("r1distill",) if case == "texts" else ("r1distill", "scikit-learn"):
                command = [sys.executable, __file__, str(number), "--only", case, who]
                try:
                    ended = subprocess.run(command, timeout=options.limit).returncode
                except subprocess.TimeoutExpired:
                    print(f"{case:14}{number:>10,}  {who:14} not in {options.limit:.0f} s", flush=True)
                else:
                    if ended:
                        print(f"{case:14}{number:>10,}  {who:14} ended with {ended}", flush=True)
