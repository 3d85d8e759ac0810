"""What a check says. A check is a pure function of what was read, and returns findings, good ones too."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from r1distill.errors import UserError

Severity = Literal["ok", "warning", "error"]
Group = Literal["versions", "files", "models and tokens", "template", "data", "sampling", "training", "disk and memory"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """`value` is what was found, `limit` what it has to be, and `remedy` what to do; the last two are empty where all is well."""

    group: Group
    severity: Severity
    check: str
    value: str
    limit: str = ""
    remedy: str = ""


def ok(group: Group, check: str, value: object) -> Finding:
    return Finding(group, "ok", check, str(value))


def warning(group: Group, check: str, value: object, limit: str, remedy: str) -> Finding:
    return Finding(group, "warning", check, str(value), limit, remedy)


def error(group: Group, check: str, value: object, limit: str, remedy: str) -> Finding:
    return Finding(group, "error", check, str(value), limit, remedy)


def attempt(group: Group, check: str, function: Callable[[], Result]) -> tuple[Result | None, list[Finding]]:
    """The result of `function`, or its UserError as a finding: the remedy is what stands behind the last semicolon."""
    try:
        return function(), []
    except UserError as reason:
        value, _, remedy = str(reason).rpartition("; ")
        return None, [error(group, check, value or remedy, "", remedy if value else "")]
