"""Problems that are made, not read: `reasoning_gym:chain_sum,gcd?size=200&seed=1&gcd.max_value=99`.

Only tasks of reasoning-gym (https://github.com/open-thought/reasoning-gym) whose right answer is one value that the
verifier's rules can tell from wrong ones. Its other tasks are scored by code of their own that takes any valid solution
(a countdown, a maze's path); much of that code evaluates the reply as Python, so that it is not called here.
"""

import dataclasses
import difflib
import importlib
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from r1distill.errors import UserError, require_packages

PREFIX = "reasoning_gym:"
LICENSE = "Apache-2.0"  # reasoning-gym's own
# Tasks whose answers are one number, a word of a closed list, or a list in a given order. Left out beside those with
# many right answers: grids and rows of numbers, words in an order and hexadecimal numbers (the rules take wrong ones as
# equal, see tests/test_procedural.py), what a reply solves by repeating the question (simplify 6/4), what depends on
# the day (time_intervals) or on Python's hash seed (list_functions, ransom_note, isomorphic_strings).
TASKS = (
    "aiw basic_arithmetic binary_alternation bitwise_arithmetic calendar_arithmetic chain_sum circuit_logic "
    "coin_flip complex_arithmetic count_bits count_primes course_schedule decimal_arithmetic decimal_chain_sum dice "
    "game_of_life_halting gcd gsm_symbolic largest_island lcm leg_counting letter_counting mahjong_puzzle maze "
    "number_filtering number_format number_sequence number_sorting products rectangle_count "
    "rotten_oranges self_reference simple_equations simple_geometry spell_backward syllogism zebra_puzzles"
).split()
DEFAULT_SIZE = 500
# reasoning-gym draws problem i of a seed with seed + i, so that seeds 1 and 2 would share all problems but one
SEED_STRIDE = MAX_SIZE = 1_000_000
COMMON = {"size": DEFAULT_SIZE, "seed": 0}  # reasoning-gym's own default seed is a random one


def is_procedural(path: str) -> bool:
    return path.startswith(PREFIX)


def procedural_version() -> str:
    """What decides the problems beside the path: the release that makes them."""
    try:
        return f"reasoning-gym {version('reasoning-gym')}"
    except PackageNotFoundError:
        return "reasoning-gym absent"


def procedural_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every problem, the tasks in turn. The same path gives the same rows, in any process.

    Raises UserError for a task or a parameter that is not known (with the nearest), and a value that the task refuses.
    """
    made = [(task, dataset(task, parameters, path)) for task, parameters in read_path(path)]
    for index in range(max(len(problems) for _, problems in made)):
        for task, problems in made:
            if index < len(problems):
                yield f"{PREFIX}{task}[{index}]", row_of(task, problems, index, path)


def check_path(path: str) -> None:
    """Raise UserError for what procedural_rows would, before anything is made."""
    for task, parameters in read_path(path):
        dataset(task, parameters, path)


def read_path(path: str) -> list[tuple[str, dict[str, Any]]]:
    """(task, its parameters) in the order of the path. `task.parameter=…` is for that task alone."""
    require_packages("problems.path = reasoning_gym:…", "reasoning_gym")
    names, _, query = path.removeprefix(PREFIX).partition("?")
    tasks = [name.strip() for name in names.split(",") if name.strip()]
    if not tasks:
        raise UserError(f"{path}: no task is named; for example {PREFIX}chain_sum,gcd?size=200&seed=1")
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"{path}: {unusable(task)}")
    given: dict[str, dict[str, Any]] = {task: dict(COMMON) for task in tasks}
    for part in filter(None, query.split("&")):
        name, equals, text = part.partition("=")
        if not equals or not name:
            raise UserError(f"{path}: {part!r} is not of the form parameter=value")
        task, dot, parameter = name.rpartition(".")
        if dot and task not in tasks:
            raise UserError(f"{path}: {name} is for the task {task}, which is not among {', '.join(tasks)}")
        for of in [task] if dot else tasks:
            given[of][parameter] = checked_value(of, parameter, text, path)
    return list(given.items())


def unusable(task: str) -> str:
    """Why a task cannot be had, and which one may have been meant."""
    known = importlib.import_module("reasoning_gym.factory").DATASETS
    if task in known:
        return (
            f"the verifier cannot judge {task} (several right answers, or one that its rules do not tell from wrong "
            f"ones); tasks that it can: {', '.join(TASKS)}"
        )
    nearest = difflib.get_close_matches(task, TASKS, n=1)
    return f"unknown task {task!r}; " + (f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(TASKS)}")


def checked_value(task: str, name: str, text: str, path: str) -> Any:
    """The value of a parameter: JSON, or a bare word, of the type that the task's default has."""
    defaults = defaults_of(task)
    if name not in defaults:
        nearest = difflib.get_close_matches(name, defaults, n=1)
        meant = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(defaults)}"
        raise UserError(f"{path}: {task} has no parameter {name!r}; {meant}")
    value: Any
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    default = defaults[name]
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, list | tuple) and isinstance(value, list):
        value = type(default)(value)
    if default is not None and type(value) is not type(default):
        raise UserError(f"{path}: {name} = {text}: {task} takes a {type(default).__name__}, such as {default!r}")
    if name == "size" and not 1 <= value <= MAX_SIZE:
        raise UserError(f"{path}: size = {value}: it must be from 1 to {MAX_SIZE:,}")
    if name == "seed" and value < 0:
        raise UserError(f"{path}: seed = {value}: it must not be negative")
    return value


def defaults_of(task: str) -> dict[str, Any]:
    """The parameters of a task and their defaults; None where it has none."""
    _, config = importlib.import_module("reasoning_gym.factory").DATASETS[task]
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        defaults[field.name] = None if value is dataclasses.MISSING else value
    return {**defaults, **COMMON}


def dataset(task: str, parameters: dict[str, Any], path: str) -> Any:
    module = importlib.import_module("reasoning_gym")
    try:
        return module.create_dataset(task, **{**parameters, "seed": parameters["seed"] * SEED_STRIDE})
    except (AssertionError, ValueError, TypeError, KeyError) as error:
        given = ", ".join(f"{name} = {value}" for name, value in parameters.items() if name not in COMMON)
        raise UserError(f"{path}: {task} refuses {given or 'that'}: {error or type(error).__name__}") from None


def row_of(task: str, problems: Any, index: int, path: str) -> dict[str, Any]:
    try:
        entry = problems[index]
    except Exception as error:  # a generator raises of every kind on sizes that it cannot make
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: {task} cannot make problem {index}: {reason}; change its parameters or leave it out"
        ) from None
    meta: dict[str, Any] = {
        "task": task,
        "index": index,
        "seed": problems.seed // SEED_STRIDE,
        "made_by": procedural_version(),
    }
    if difficulty := entry["metadata"].get("difficulty"):
        meta["difficulty"] = json.loads(json.dumps(difficulty, default=str))
    return {
        "problem": entry["question"],
        "answer": entry["answer"],
        "kind": "math",
        "source": f"{PREFIX}{task}",
        "license": LICENSE,
        "meta": meta,
    }
