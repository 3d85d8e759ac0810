"""Turn the name of a model into what vLLM and transformers open: an embedded one, a folder, or a Hub id."""

import importlib
import re
from pathlib import Path
from typing import Any

from r1distill.errors import UserError, require_packages
from r1distill.quickstart import embedded_model

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
