"""What every section of a recipe and of a task is, and the bounds that several of them give."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings of one stage. Frozen: nothing changes a recipe after it was read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Between(Section):
    """The bounds of a column, both inclusive: in `problems.where` and in `filter.rules`."""

    at_least: int | float | str | None = None
    """The smallest value, or the first day of a window."""
    at_most: int | float | str | None = None
    """The largest value, or the last day: `"2025-01"` takes in all of January."""
