"""What it takes to make a dataset again: the keys of the recipe that decide it, as a recipe, and their hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

from r1distill.recipe import Recipe

SECTIONS = (
    "problems",
    "traces",
    "teacher",
    "generate",
    "verify",
    "filter",
    "contamination",
)  # of those that a recipe has
# they decide where and how fast it runs; who publishes it may not want to tell
PRIVATE = {
    "teacher": {"urls", "api_key_env", "timeout_s", "retries", "engine", "usd_per_million_tokens"},
    "generate": {"concurrency", "metrics_port"},
    "verify": {"workers"},
    "judge": {"urls", "api_key_env", "timeout_s", "retries", "concurrency"},
}


def rebuild_recipe(recipe: Recipe) -> str:
    """The recipe in TOML without what is private, absent or says where a file of this machine is."""
    settings = recipe.model_dump(exclude_none=True)
    if recipe.traces is not None:  # nobody is asked, but the prompt of the dataset is that of [generate]
        del settings["problems"], settings["teacher"]
        settings["generate"] = {name: settings["generate"][name] for name in ("prompt", "prefill")}
    tables = {"run_dir": f"runs/{Path(recipe.run_dir).name}", "seed": recipe.seed}
    tables |= {name: public(settings[name], name) for name in SECTIONS if name in settings}
    lines = [f"{key} = {toml(value)}" for key, value in tables.items() if not isinstance(value, dict)]
    for name, section in tables.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(f"{toml_key(key)} = {toml(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def recipe_sha256(recipe: Recipe) -> str:
    """Of the text of `rebuild_recipe`."""
    return hashlib.sha256(rebuild_recipe(recipe).encode()).hexdigest()


def public(value: Any, name: str) -> Any:
    """A value of a recipe without what is private below it; of an absolute path the name alone."""
    if isinstance(value, dict):
        return {key: public(each, key) for key, each in value.items() if key not in PRIVATE.get(name, ())}
    if isinstance(value, list):
        return [public(each, name) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~/")) else value


def toml(value: Any) -> str:
    """A value in TOML. Strings, numbers, lists and booleans are those of JSON, but for the one character 0x7F."""
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{toml_key(key)} = {toml(each)}" for key, each in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "_").isidentifier() else toml(key)
