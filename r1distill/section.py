"""What every section of a recipe and of a task is, and the bounds that several of them give."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


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


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, optional or not, a list or a table of them, or None for a plain value."""
    for annotation in (field.annotation, *get_args(field.annotation)):
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return annotation
    return None


def false_is_absent(table: dict[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """The table, and those in it, with None for `false` at keys that are absent by default: TOML has no null."""
    found = dict(table)
    for key, value in table.items():
        if (field := section.model_fields.get(key)) is None:
            continue
        if value is False and field.default is None:
            found[key] = None
        elif isinstance(value, dict) and (inner := section_of(field)) and get_origin(field.annotation) is not dict:
            found[key] = false_is_absent(value, inner)
    return found
