"""Turn the name of a model into what vLLM and transformers open: an embedded one, a folder, or a Hub id."""

import functools
import hashlib
import importlib
import re
from pathlib import Path
from typing import Any

from r1distill.errors import UserError, require_packages
from r1distill.quickstart import embedded_model
from r1distill.store import file_sha256, size_and_time

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# of a file of weights so many blocks are read, of so many bytes, from end to end: its beginning and end alone are embeddings and
# norms, which a short training may leave as they are
BLOCKS, BLOCK = 64, 1 << 15
DESCRIBED_IN = ("config.json", "adapter_config.json", "chat_template.jinja", "tokenizer_config.json")


def resolve_model(name: str, key: str) -> str:
    """The path or Hub id to open; an embedded model is converted on first use. `key` is the recipe's, for the error."""
    check_model_name(name, key)
    if name.startswith("quickstart:"):
        return str(embedded_model(name))
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def load_tokenizer(name: str, revision: str | None, key: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model. Raises UserError where there is none to be had."""
    require_packages(f"{key} = {name}: reading its tokenizer", "transformers")
    transformers = importlib.import_module("transformers")
    try:
        has_one = (Path(name).expanduser() / "tokenizer_config.json").is_file()  # and maybe no model beside it
        path = Path(name).expanduser() if has_one else resolve_model(name, key)
        return transformers.AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key} = {name}: its tokenizer cannot be read: {reason}; give a folder or Hub id that has one"
        ) from None


def check_model_name(name: str, key: str) -> None:
    """Raise UserError where no model of that name can be opened, without converting or downloading one."""
    if name.startswith("quickstart:"):
        return
    path = Path(name).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise UserError(
                f"{key} = {name}: a folder without config.json, so no model; give the folder of a Hugging Face model"
            )
        return
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise UserError(
            f"{key} = {name}: no such folder; give a model folder, a Hub id (org/name), or quickstart:student"
        )
    require_packages(f"{key} = {name}: fetching it from the Hub", "transformers")
    hub = importlib.import_module("huggingface_hub")
    try:
        hub.hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:  # not found, gated, offline without a cached copy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key} = {name}: no folder of that name, and not to be had from the Hub: {reason.rstrip('.')}; "
            "download it where the Hub can be reached, or give the folder where it is"
        ) from None


def fingerprint(name: str) -> str | None:
    """Of the model or adapter in a folder, which the next training may write into; None where `name` is no folder.

    Of each file of weights its name, its size and some blocks: the whole of them would take minutes.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")):
        size, changed_ns = size_and_time(file)
        content = blocks_sha256(file, size, changed_ns) if size > BLOCKS * BLOCK else file_sha256(file)
        found.update(f"{file.name} {size} {content} ".encode())
    for described in DESCRIBED_IN:
        if (folder / described).is_file():
            found.update(file_sha256(folder / described).encode())
    return found.hexdigest()[:16]


@functools.cache
def blocks_sha256(file: Path, size: int, changed_ns: int) -> str:
    """The state of the stages is asked for a dozen times, and a teacher may have hundreds of files."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        for place in range(BLOCKS):
            opened.seek(max(size - BLOCK, 0) * place // (BLOCKS - 1))
            found.update(opened.read(BLOCK))
    return found.hexdigest()
