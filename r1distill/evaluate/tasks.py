"""Benchmarks as files: eval/*.toml says where the questions are, how they are asked, and what others measured."""

from pathlib import Path

from pydantic import Field

from r1distill.errors import UserError
from r1distill.recipe import read_toml, validated
from r1distill.resources import SHIPPED, shipped_names
from r1distill.section import Section
from r1distill.sections import Problems


class Published(Section):
    """Scores that others report, in percent."""

    source: str
    scores: dict[str, float]


class Task(Section):
    """One benchmark."""

    name: str
    title: str
    license: str
    prompt: str = "prompts/math.txt"
    samples: int = Field(ge=1)
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=32768, ge=1)
    data: Problems
    published: Published | None = None


def load_task(name: str) -> Task:
    """A task by the name of its file in eval/, or by a path. Raises UserError with the names there are."""
    path = Path(name).expanduser() if name.endswith(".toml") else SHIPPED / "eval" / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(shipped_names("eval", ".toml"))
        raise UserError(f"eval.tasks: no such task: {name}; give the path of a TOML file or one of: {known}")
    return validated(Task, read_toml(path), path)
