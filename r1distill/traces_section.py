"""The section [traces] of the recipe: reasoning traces that others have sampled, filtered here in place of a teacher's."""

from typing import Literal

from pydantic import Field

from r1distill.section import Section


class Traces(Section):
    """Traces of a public set or a file, in place of a teacher's: [problems] and [teacher] are not read then. Whatever their
    teacher was asked, the student is asked `generate.prompt`, with the question in it; `prompts/plain.txt` is the question
    alone, for a set whose questions say how to answer. Absent: the teacher is sampled. See "Others' traces"."""

    path: str = Field(min_length=1)
    """JSONL, JSON or Parquet file, a folder of them, or a Hub dataset id, such as `open-r1/OpenR1-Math-220k`."""
    split: str = "train"
    """Split of a Hub dataset."""
    subset: str | None = None
    """Configuration name of a Hub dataset."""
    revision: str | None = None
    """Git revision of a Hub dataset."""
    files: list[str] | None = None
    """Files of a Hub dataset, or of a folder, instead of a split."""
    format: Literal["auto", "openr1-math", "openthoughts-metadata", "openthoughts-math", "chat"] = "auto"
    """Whose columns they are; `auto` tells by their names. `chat`: Mixture-of-Thoughts, OpenThoughts, ShareGPT."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first so many rows."""
    verdicts: Literal["ours", "theirs"] = "ours"
    """`ours`: judged again where there is a reference; `theirs`: the set's own labels, which labels.parquet has either way."""
    model: str = ""
    """Who sampled them, where the set is none that is known."""
    license: str = ""
    """Licence of the set, where neither its rows have one nor the set is known."""
