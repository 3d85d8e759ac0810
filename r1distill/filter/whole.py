"""Before anything is published: is it whole, and is there nothing in it that nobody else should see?"""

import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from r1distill.errors import UserError
from r1distill.filter.dataset import EXAMPLE_SCHEMA, messages_sha256
from r1distill.filter.exports import rows_of
from r1distill.filter.licenses import front_matter
from r1distill.filter.measured import SPLITS, Measured, measure
from r1distill.run import Run
from r1distill.store import read_json

SECRET_NAME = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)  # of a variable of the environment
SHORTEST_SECRET = 12  # characters; shorter values are flags and numbers, and stand in any text
SECRET_FILES = re.compile(
    r"journal|\.env($|\.)|id_(rsa|ed25519|ecdsa|dsa)|\.(pem|key|p12|pfx|sqlite\d?|db)(-\w+)?$|^\.?netrc$|credentials|^token$",
    re.IGNORECASE,
)
SECRET_TEXTS = {
    "a token of the Hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a key of an API": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a key of AWS": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in a URL": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
}
TEXT_SUFFIXES = (".md", ".json", ".txt", ".jinja")
LARGEST_TEXT = 64 << 20  # bytes of a file whose text is searched; a tokenizer has a few million


def check_dataset(run: Run) -> Measured:
    """Raises UserError where the dataset is not that of the last, finished `r1distill filter`, row by row."""
    again = "run `r1distill filter` again"
    if not run.is_done("filter"):
        raise UserError(f"{run.folder}: its stage filter is not done, so there is no whole dataset; {again}")
    found = measure(run.dataset)
    try:
        kept = read_json(run.funnel)["kept"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run.funnel}: not to be read, so nobody knows how much was kept; {again}") from None
    if found.examples != kept:
        raise UserError(
            f"{run.dataset}: {found.examples:,} rows, and funnel.json says that {kept:,} were kept; {again}"
        )
    if missing := [name for name in EXAMPLE_SCHEMA.names if name not in found.columns]:
        raise UserError(f"{run.dataset}: no column {', '.join(missing)}: an earlier version wrote it; {again}")
    files = {path for part in front_matter(run.dataset / "README.md").get("configs") or [] for path in paths_of(part)}
    if files != {f"{split}.parquet" for split in found.rows}:
        raise UserError(f"{run.dataset}/README.md does not name the files of the dataset; {again}")
    secrets = secrets_of_environment()
    for split in SPLITS:
        path = run.dataset / f"{split}.parquet"
        if not path.is_file():
            continue
        for number, row in enumerate(rows_of(path, ["messages", "sha256"])):
            if (
                messages_sha256([{"role": m["role"], "content": m["content"]} for m in row["messages"]])
                != row["sha256"]
            ):
                raise UserError(f"{path}: row {number}: its messages are not those that `sha256` is of; {again}")
            for message in row["messages"]:
                refuse_secrets(message["content"], f"{path}: row {number}", secrets)
    return found


def paths_of(config: Any) -> list[str]:
    files = config.get("data_files") if isinstance(config, dict) else None
    return [str(each["path"]) for each in files or [] if isinstance(each, dict) and "path" in each]


def check_student(run: Run) -> None:
    """Raises UserError where the student's training is not done, or a file of the model is missing or cut off."""
    again = "run `r1distill train` again"
    if not run.is_done("train"):
        raise UserError(f"{run.folder}: its stage train is not done, so there is no whole student; {again}")
    weights = sorted(run.student.glob("*.safetensors"))
    index = run.student / "model.safetensors.index.json"
    try:
        named = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index}: not an index of weights; {again}") from None
    needed = {"README.md", "tokenizer_config.json", *named}
    needed |= set() if (run.student / "adapter_config.json").is_file() else {"config.json"}
    if missing := sorted(name for name in needed if not (run.student / name).is_file()):
        raise UserError(f"{run.student}: no {', '.join(missing)}; {again}")
    if not weights:
        raise UserError(f"{run.student}: no weights (*.safetensors); {again}")
    for path in weights:
        if path.stat().st_size != safetensors_size(path):
            raise UserError(f"{path}: cut off, or not a file of weights; {again}")


def safetensors_size(path: Path) -> int:
    """Bytes that a file has by its own header (https://github.com/huggingface/safetensors#format); -1 if it has none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return -1
        try:
            tensors = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return -1
    return 8 + length + max(ends, default=0)


# ---------------------------------------------------------------- secrets


def check_names(names: Iterable[str]) -> None:
    """Raises UserError where one is a key's or a journal's: that they lie there is a mistake, whether they are sent or not."""
    if found := [name for name in names if any(SECRET_FILES.search(part) for part in Path(name).parts)]:
        raise UserError(
            f"{', '.join(found[:3])}: this is a key or a journal by its name; move it out of what is published"
        )


def check_texts(files: Iterable[Path]) -> None:
    """Raises UserError for a small text file with a key in it."""
    secrets = secrets_of_environment()
    for path in files:
        if path.suffix not in TEXT_SUFFIXES or path.stat().st_size > LARGEST_TEXT:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        refuse_secrets(text, str(path), secrets)
        for what, pattern in SECRET_TEXTS.items():
            if found := pattern.search(text):
                raise UserError(
                    f"{path}: has what looks like {what} ({found[0][:8]}…); take it out, and make a new one"
                )


def refuse_secrets(text: str, place: str, secrets: Collection[tuple[str, str]]) -> None:
    for name, value in secrets:
        if value in text:
            raise UserError(
                f"{place}: has the value of the environment variable {name} in it; take it out, and make a new one"
            )


def secrets_of_environment() -> list[tuple[str, str]]:
    """Names and values of the variables that are keys by their names."""
    return [
        (name, value)
        for name, value in sorted(os.environ.items())
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET and not Path(value).exists()
    ]
