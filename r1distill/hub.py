"""Whether the Hub can be reached. One set that is asked for in vain costs half a minute of retries, seventeen ten minutes."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import httpx

ANSWER_S = 10.0


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Where the Hub does not answer, read its sets in this block from the local cache alone, as HF_HUB_OFFLINE=1 does."""
    if find_spec("datasets") is None:  # whoever reads a set says so
        yield
        return
    constants: Any = importlib.import_module("huggingface_hub.constants")
    config: Any = importlib.import_module("datasets.config")
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    offline = constants.HF_HUB_OFFLINE or not answers(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = offline, before[1] or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def answers(endpoint: str) -> bool:
    """Whether anything answers there; what it says does not matter."""
    try:
        httpx.head(endpoint, timeout=ANSWER_S)
    except httpx.HTTPError:
        return False
    return True
