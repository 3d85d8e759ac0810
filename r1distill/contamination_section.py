"""`[contamination]`: which benchmarks the problems are compared with, and how closely."""

from typing import Literal

from pydantic import Field

from r1distill.section import Section


class Contamination(Section):
    """Problems that a benchmark asks too. What is found is written down with the words that match, and dropped."""

    enabled: bool = True
    """Compare the problems with benchmarks; false says in contamination.json that nobody did."""
    benchmarks: Literal["all"] | list[str] = "all"
    """`all` of eval/*.toml, or some by name or path; those that cannot be read here are named in contamination.json."""
    extra: list[str] = []
    """Problems of yours that no student may have seen: files, folders or Hub ids as in `problems.path`."""
    data: dict[str, str] = {}
    """Where a benchmark's questions are instead of where its file says, besides `eval.data`: `{ aime24 = "aime24.jsonl" }`."""
    data_dir: str | None = None
    """A folder with the benchmarks' files or folders by name; absent, `eval.data_dir`."""
    ngram: int = Field(default=10, ge=4, le=64)
    """Words that two problems must have in a row, in the normal form, numbers included. 10 as DeepSeek-R1."""
    share: float = Field(default=0.6, gt=0, le=1)
    """How much of the shorter problem such runs must cover, words weighed by how rare they are; 0.01 is any run at all."""
    similarity: float = Field(default=0.8, ge=0.6, le=1)
    """From here on a whole problem is taken for a benchmark's with some words changed; 1 is off."""
    other_numbers: bool = True
    """Take a benchmark's problem with other numbers for the benchmark's, unless the benchmark itself has several such."""
