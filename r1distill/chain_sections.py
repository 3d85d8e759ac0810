"""[[chain]] and [on_policy]: trainings that follow each other."""

from typing import Any, Literal

from pydantic import Field, model_validator

from r1distill.section import Section

# what a link's tables cannot say, since it makes the link what it is
DECIDED = {
    "run_dir": "a link's is RUN/chain/NAME, where RUN is the recipe's",
    "chain": "a link has none of its own; add a table to the recipe's",
    "ablate": "it is read from the recipe alone, by `r1distill ablate`",
    "train.student": "the student of a link is its chain.student",
    "teacher.model": "[teacher] names the first link's, and the student of a link is the next one's",
}


class Link(Section):
    """A student of the chain: taught by the one before it, the first by [teacher]. Its run is RUN/chain/NAME."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of its folder."""
    student: str = Field(min_length=1)
    """Hub id, folder, or `quickstart:student`."""
    set: dict[str, Any] = {}
    """Tables of the recipe for this link alone, over those of all: `{ train = { max_length = 8192 } }`; neither `run_dir`,
    `train.student` nor `teacher.model`."""

    @model_validator(mode="after")
    def sets_no_link(self) -> "Link":
        for dotted, why in DECIDED.items():
            section, _, key = dotted.partition(".")
            table = self.set.get(section) if key else self.set
            if isinstance(table, dict) and (key or section) in table:
                raise ValueError(f'"{self.name}": set.{dotted} is not of one link; take it out ({why})')
        return self


class OnPolicy(Section):
    """A last stage: the trained student's own samples, on which it learns from the teacher's distributions, in rounds."""

    teacher: str | None = None
    """Who judges every token, in the training itself: Hub id or folder; absent is train.kl.online, or teacher.model."""
    revision: str | None = None
    """Git revision of `teacher` on the Hub; absent without that is the revision of whoever it is then."""
    rounds: int = Field(default=2, ge=1)
    """How often the student is sampled anew and trained on that."""
    samples: int = Field(default=1, ge=1)
    """Of each problem and round."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many problems; absent is those of [problems]."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "reverse"
    """KL(student || teacher) by default, which draws the student to what the teacher finds likely."""
    cross_tokenizer: Literal["aligned", "uld"] | None = None
    """For a teacher with another tokenizer, as in [train.kl]; the rounds do not pack then. Where the teacher is that of
    train.kl.online, its cross_tokenizer is the default."""
    args: dict[str, Any] = {}
    """Over train.args: a tenth of its learning rate is usual. There is no validation split to look at."""

    @model_validator(mode="after")
    def revises_its_own(self) -> "OnPolicy":
        if self.revision and not self.teacher:
            raise ValueError(
                f"revision = {self.revision} without a teacher: name it in on_policy.teacher, or set its own revision where it "
                "is named"
            )
        return self
