"""What a person can mend ends in one line and exit code 2; everything else is a bug and keeps its traceback."""

import importlib.util

EXTRA_OF_PACKAGE = {
    "vllm": 'pip install "r1distill[gpu]" (or "r1distill[cpu]" on a machine without a GPU)',
    "torch": 'pip install "r1distill[train]"',
    "transformers": 'pip install "r1distill[train]"',
    "datasets": 'pip install "r1distill[train]"',
    "huggingface_hub": 'pip install "r1distill[train]"',
    "accelerate": 'pip install "r1distill[train]"',
    "trl": 'pip install "r1distill[train]"',
    "peft": 'pip install "r1distill[train]"',
    "deepspeed": 'pip install "r1distill[gpu]"',
    "torchao": 'pip install "r1distill[quantize]"',
    "compressed_tensors": 'pip install "r1distill[quantize]"',
    "ray": 'pip install "r1distill[ray]"',
    "reasoning_gym": 'pip install "r1distill[reasoning-gym]"',
    "gguf": 'pip install "r1distill[quickstart]"',
    "sklearn": 'pip install "r1distill[clusters]"',
    "sentence_transformers": 'pip install "r1distill[embeddings]"',
}


class UserError(Exception):
    """A problem that the user can mend. The message says the value, the limit and the remedy, in one line."""


def require_packages(purpose: str, *packages: str) -> None:
    """Raise UserError for the first of `packages` that is not installed, with the extra that brings it.

    Nothing is imported, so this is cheap enough to call before a long job starts.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{purpose} needs {package}, which is not installed: {EXTRA_OF_PACKAGE[package]}")
