"""[[teachers]]: several models whose distributions are taught together."""

from pydantic import Field

from r1distill.section import Section


class ScoringTeacher(Section):
    """A teacher that scores the kept traces as [cache] says, whoever sampled them; its cache is teacher_cache/NAME."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of its cache, and of what is logged."""
    model: str = Field(min_length=1)
    """Hub id, folder, or `quickstart:teacher`; it has the student's vocabulary."""
    revision: str | None = None
    """Git revision on the Hub."""
    tokenizer: str | None = None
    """Hub id or folder of its tokenizer and chat template; absent is the model's own."""
    weight: float = Field(default=1.0, gt=0)
    """Share in the mixture, against the weights of the others that teach the same problem."""
    domains: list[str] = []
    """Sources or kinds of problems; a problem is taught by those that name it, and only where none does by those without any."""
