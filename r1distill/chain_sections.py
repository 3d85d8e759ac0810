"""[[chain]] and [on_policy]: trainings that follow each other."""

from typing import Any, Literal

from pydantic import Field

from r1distill.section import Section


class Link(Section):
    """A student of the chain: taught by the one before it, the first by [teacher]. Its run is RUN/chain/NAME."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of its folder."""
    student: str = Field(min_length=1)
    """Hub id, folder, or `quickstart:student`."""
    set: dict[str, Any] = {}
    """Tables of the recipe for this link alone, over those of all: `{ train = { max_length = 8192 } }`."""


class OnPolicy(Section):
    """A last stage: the trained student's own samples, on which it learns from the teacher's distributions, in rounds."""

    teacher: str | None = None
    """Who judges every token, in the training itself: Hub id or folder; absent is train.kl.online, or teacher.model."""
    rounds: int = Field(default=2, ge=1)
    """How often the student is sampled anew and trained on that."""
    samples: int = Field(default=1, ge=1)
    """Of each problem and round."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems; absent is those of [problems]."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "reverse"
    """KL(student || teacher) by default, which draws the student to what the teacher finds likely."""
    cross_tokenizer: Literal["aligned", "uld"] | None = None
    """For a teacher with another tokenizer, as in [train.kl]."""
    args: dict[str, Any] = {}
    """Over train.args: a tenth of its learning rate is usual."""
