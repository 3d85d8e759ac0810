"""Files that others wrote, read with limits. Nothing in them is executed or unpickled."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from r1distill.errors import UserError
from r1distill.verify.programs import FENCE, is_python

MAX_LINE_BYTES = 256 << 20  # 64 replies of 32,768 tokens are 10 MB
MAX_FILE_BYTES = 4 << 30  # of a file that has to be read whole: a LiveCodeBench output is one JSON list
MAX_PROGRAM_BYTES = 4 << 20

Wanted = TypeVar("Wanted")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`path:line`, object) of each line that is not blank. Raises UserError naming the place of any other."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give a JSONL file") from None
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise UserError(f"{place}: over {MAX_LINE_BYTES >> 20} MB in one line; it is no file of samples")
            if line.strip():
                yield place, needed(parsed(line, place), dict, place)


def json_file(path: Path) -> Any:
    """The value of a JSON file. Raises UserError where it is too large, unreadable or malformed."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"{path}: {size / 2**30:.1f} GB; at most {MAX_FILE_BYTES >> 30} GB are read; split it")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give a JSON file") from None
    return parsed(data, str(path))


def parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); mend or delete it") from None


def needed(value: Any, wanted: type[Wanted], place: str) -> Wanted:
    """`value`, which must be of the type `wanted`; else UserError."""
    if not isinstance(value, wanted):
        raise UserError(f"{place}: a {wanted.__name__} is needed, this is a {type(value).__name__}")
    return value


def texts(value: Any, place: str) -> list[str]:
    """A list of strings, or of lists of them, as one list. Raises UserError for anything else."""
    found: list[str] = []
    for item in needed(value, list, place):
        found += texts(item, place) if isinstance(item, list) else [needed(item, str, place)]
    return found


def as_reply(program: str) -> str:
    """A bare program as a reply with one fenced block; a reply that has a fence and is no program stays as it is."""
    if FENCE.search(program) and not is_python(program):
        return program
    longest = max((len(fence[1]) for fence in FENCE.finditer(program)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{program.strip(chr(10))}\n{fence}"
