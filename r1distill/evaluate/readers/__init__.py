"""Generations that other tools sampled and graded, as one kind of record."""

from r1distill.evaluate.readers import evalplus, lighteval, livecodebench, lm_eval
from r1distill.evaluate.readers.record import Generation, Reader

__all__ = ["READERS", "Generation", "Reader"]

READERS: dict[str, Reader] = {
    "lm-eval": lm_eval.read,
    "lighteval": lighteval.read,
    "evalplus": evalplus.read,
    "livecodebench": livecodebench.read,
}
