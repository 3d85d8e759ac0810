"""The recipe reference of README.md, made from the models and the docstrings of their fields."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from r1distill.recipe import Recipe
from r1distill.section import section_of
from r1distill.train_sections import Schedule


def reference() -> str:
    """The recipe reference of README.md, in Markdown."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *reference_rows(Recipe, "")]
    rows += [heading("a schedule", Schedule), *reference_rows(Schedule, "")]
    return "\n".join(rows) + "\n"


def reference_rows(model: type[BaseModel], prefix: str) -> list[str]:
    """A row for each key of a section; the sections in it follow with a heading of their own."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None or section is Schedule:
            rows.append(reference_row(f"{prefix}{name}", field))
        else:
            name = f"{name}.NAME" if get_origin(field.annotation) is dict else name
            title, default = f"[{prefix}{name}]", " "
            if get_origin(field.annotation) is list:  # as TOML writes a list of tables
                title, default = f"[{title}]", f" `{toml_value(field.default)}` "
            below.append(heading(title, section, default))
            below += reference_rows(section, f"{prefix}{name}.")
    return rows + below


def heading(name: str, section: type[BaseModel], default: str = " ") -> str:
    return f"| **{name}** | |{default}| {cell(section.__doc__)} |"


def cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def reference_row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{toml_value(field.default)}`"
    return f"| `{name}` | {type_name(field.annotation)} | {default} | {cell(field.description)} |"


def type_name(annotation: Any) -> str:
    """A type as a person writes it: `int`, `list of str`, `"a" or "b"`."""
    if annotation is type(None) or annotation is Any:
        return ""
    if annotation is Schedule:
        return "a schedule"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    arguments = get_args(annotation)
    if all(isinstance(argument, str) for argument in arguments):
        return " or ".join(f'"{argument}"' for argument in arguments)
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "table"
    return " or ".join(name for name in map(type_name, arguments) if name)


def toml_value(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(each)}" for key, each in value.items()) + " }" if value else "{}"
    return str(value)
