"""The recipe: pydantic models over TOML, then `section.key=value`. Unknown keys are errors that name the nearest one.

Values that follow from others are functions or properties, never stored fields.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from r1distill.ablate_section import Ablate
from r1distill.chain_sections import Link, OnPolicy
from r1distill.contamination_section import Contamination
from r1distill.errors import UserError
from r1distill.prune_section import Prune
from r1distill.quantize_sections import Quantize
from r1distill.resources import SHIPPED, shipped_names
from r1distill.section import Section, false_is_absent, section_of
from r1distill.sections import MADE_BY, Cache, Eval, Filter, Generate, Problems, Serve, Teacher, Verify
from r1distill.teachers_section import ScoringTeacher
from r1distill.traces_section import Traces
from r1distill.train.schedules import all_values
from r1distill.train_sections import Train

RECIPES = "scripts/recipes"
# where an unknown key of a section may have been meant to go
PASSED_THROUGH = {
    "train": "; TRL's options go in [train.args]",
    "teacher": "; vLLM's options go in [teacher.engine]",
    "cache": "; vLLM's options go in [cache.engine]",
    "eval": "; vLLM's options go in [eval.engine]",
    "serve": "; vLLM's options go in [teacher.engine]",
}
Model = TypeVar("Model", bound=BaseModel)


class Recipe(Section):
    """Everything that decides a run."""

    run_dir: str = Field(min_length=1)
    """The folder of the run; the same folder continues it."""
    seed: int = Field(default=0, ge=0)
    """Seeds every sample (with its identity) and the training."""
    problems: Problems = Problems()
    traces: Traces | None = None
    teacher: Teacher = Teacher()
    teachers: list[ScoringTeacher] = []  # noqa: RUF012 - pydantic copies defaults
    serve: Serve = Serve()
    generate: Generate = Generate()
    verify: Verify = Verify()
    filter: Filter = Filter()
    contamination: Contamination = Contamination()
    cache: Cache = Cache()
    prune: Prune | None = None
    train: Train = Train()
    on_policy: OnPolicy | None = None
    quantize: Quantize | None = None
    eval: Eval = Eval()
    chain: list[Link] = []  # noqa: RUF012 - pydantic copies defaults
    ablate: Ablate = Ablate()

    @model_validator(mode="after")
    def distributions_have_one_source(self) -> "Recipe":
        if self.generate.keep_distributions and self.cache.source != "generation" and not self.teachers:
            raise ValueError(
                f'generate.keep_distributions and cache.source = "{self.cache.source}": the distributions would be taken '
                "twice; set one of them back"
            )
        return self

    @model_validator(mode="after")
    def traces_of_others_are_not_sampled(self) -> "Recipe":
        if self.traces is None:
            return self
        kl = self.train.kl
        if self.generate.keep_distributions:
            raise ValueError(
                "generate.keep_distributions with [traces]: nothing is sampled, so there is nothing to keep; set it to false"
            )
        if kl is not None and kl.online is None and self.cache.source == "generation":
            raise ValueError(
                "[train.kl] with [traces]: nothing is sampled, so that the distributions have to be scored; set cache.source = "
                '"transformers" or "vllm", and name who scores in teacher.model or cache.model'
            )
        if self.traces.verdicts == "theirs" and self.verify.judge is not None:
            raise ValueError(
                '[verify.judge] with traces.verdicts = "theirs": the labels of the set are the verdicts, and no judge is '
                "asked; take one of the two out"
            )
        return self

    @model_validator(mode="after")
    def several_teachers_are_scored(self) -> "Recipe":
        if not self.teachers:
            return self
        names, kl = [teacher.name for teacher in self.teachers], self.train.kl
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f'[[teachers]]: "{twice[0]}" is there twice; each has a cache by its name')
        if kl is None or kl.online:
            raise ValueError("[[teachers]] are for [train.kl] with caches; add it, or take train.kl.online or them out")
        if self.cache.source == "generation":
            raise ValueError(
                '[[teachers]] with cache.source = "generation": only who samples has distributions then; set it to "vllm" or '
                '"transformers"'
            )
        if self.cache.model or self.cache.revision or self.cache.tokenizer:
            raise ValueError(
                "[[teachers]] beside cache.model, cache.revision or cache.tokenizer: both say who scores; take the latter out"
            )
        if kl.mode == "exact" and kl.temperature != 1.0:
            raise ValueError(
                'train.kl.mode = "exact" at another temperature than 1 with [[teachers]]: the tail of a mixture does not follow '
                'from those of its parts; set train.kl.mode = "conditional"'
            )
        return self

    @model_validator(mode="after")
    def what_is_sampled_again_is_whole(self) -> "Recipe":
        if (
            (self.on_policy or self.chain or self.quantize)
            and self.train.peft is not None
            and not self.train.merge_adapter
        ):
            raise ValueError(
                "[on_policy], [[chain]] and [quantize] with train.merge_adapter = false: an adapter alone neither teaches nor is "
                "trained on or rounded; set it to true"
            )
        for role, section in MADE_BY.items():
            if role in self.eval.models and getattr(self, section) is None:
                raise ValueError(f'eval.models has "{role}", and there is no [{section}]; add it, or take the name out')
        return self

    @model_validator(mode="after")
    def what_is_trained_with_rounding_is_rounded_so(self) -> "Recipe":
        qat, quantize = self.train.qat, self.quantize
        if qat is None or quantize is None:
            return self
        if qat.scheme != quantize.scheme:
            raise ValueError(
                f'train.qat.scheme = "{qat.scheme}" and quantize.scheme = "{quantize.scheme}": the student would be trained for '
                "another rounding than it gets; set both to the same"
            )
        if set(qat.ignore) != set(quantize.ignore):
            raise ValueError(
                f"train.qat.ignore = {qat.ignore} and quantize.ignore = {quantize.ignore}: layers would be trained for a "
                "rounding that they do not get, or get one that they were not trained for; set both to the same"
            )
        return self

    @model_validator(mode="after")
    def every_arm_has_a_filter(self) -> "Recipe":
        for arm in self.ablate.arms:
            try:
                arm.over(self.filter)
            except ValidationError as error:
                wrong = "; ".join(describe(problem, Filter) for problem in error.errors())
                raise ValueError(f'ablate.arms, "{arm.name}": filter: {wrong}') from None
        return self

    @model_validator(mode="after")
    def mode_exact_has_its_temperatures(self) -> "Recipe":
        kl = self.train.kl
        if kl is None or kl.online or kl.mode != "exact":
            return self
        temperatures, known = all_values(kl.temperature), [1.0, *self.cache.temperatures]
        if temperatures is None or not set(temperatures) <= set(known):
            raise ValueError(
                f'train.kl.mode = "exact" at temperatures {temperatures or "of a range"}, and the mass outside of what is kept '
                f'is known at {known}; set train.kl.mode = "conditional", or cache.source = "transformers" and '
                "cache.temperatures"
            )
        return self


def refuse_missing(recipe: Recipe, what: str, *keys: str) -> None:
    """Raise UserError where a recipe has nothing at these dotted keys, which `what` needs. One that only evaluates has few."""
    settings = recipe.model_dump()
    missing = [key for key in keys if not settings[key.partition(".")[0]][key.partition(".")[2]]]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        raise UserError(f"{' and '.join(missing)} {are} missing, and {what} needs {'them' if are == 'are' else 'it'}")


def refuse_rounding_for_nothing(recipe: Recipe, path: Path) -> Recipe:
    """The recipe, which was read at `path`. Raises UserError for [train.qat] without [quantize].

    Not a validator: rounds on the student's own samples train with rounding too, and it is the run around them that rounds.
    """
    if recipe.train.qat is not None and recipe.quantize is None:
        raise UserError(
            f"{path}: [train.qat] without [quantize]: the student would be trained for 8 bits and none would be made; add "
            f'[quantize] (quantize.scheme = "{recipe.train.qat.scheme}"), or take [train.qat] out'
        )
    return recipe


def as_given(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a recipe.json without the names that its recipe did not give: they are "" there, which nobody may write."""
    given = dict(tables)
    for name, field in Recipe.model_fields.items():
        section = section_of(field)
        if section is not None and isinstance(table := tables.get(name), dict):
            left_out = [key for key, each in section.model_fields.items() if each.default == table.get(key) == ""]
            given[name] = {key: value for key, value in table.items() if key not in left_out}
    return given


def find_recipe(name: str) -> Path:
    """A path, or the name of a shipped recipe (`quickstart`, `qwen2.5-math-7b`)."""
    if Path(name).exists() and not Path(name).is_dir():
        return Path(name)
    for candidate in (SHIPPED / RECIPES / f"{name}.toml", SHIPPED / name):
        if candidate.is_file():
            return candidate
    known = shipped_names(RECIPES, ".toml")
    meant = "".join(f"; did you mean {each}?" for each in difflib.get_close_matches(name, known, n=1))
    raise UserError(f"no such recipe: {name}{meant}; give the path of a TOML file or one of: {', '.join(known)}")


def load_recipe(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read, with the recipe it extends; override, validate. Raises UserError with the key, the value and the remedy."""
    data = read_tables(path)
    for override in overrides:
        apply_override(data, override)
    return refuse_rounding_for_nothing(validated(Recipe, false_is_absent(data, Recipe), path), path)


def read_tables(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, put over those of the recipe that its key `base` names, if it has one.

    `base` is a path from the file's own folder, or the name of a shipped recipe. `above`: the files that led here.
    Raises UserError where there is no such recipe, or it extends itself.
    """
    data = read_toml(path)
    if "base" not in data:
        return data
    base = data.pop("base")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base = {base!r}: the path or name of the recipe that this one extends")
    beside = path.parent / base
    try:
        found = beside if beside.is_file() else find_recipe(base)
    except UserError as error:
        raise UserError(f"{path}: base = {base!r}: {error}") from None
    chain = (*above, path.resolve())
    if found.resolve() in chain:
        names = " → ".join(each.name for each in (*chain, found))
        raise UserError(f"{path}: base = {base!r}: these recipes extend each other: {names}; take one base out")
    return merged(read_tables(found, chain), data)


def merged(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Table by table; any other value of `over` is taken as it is, and so is a table with a `kind`, such as a schedule."""
    result = dict(below)
    for key, value in over.items():
        whole = not isinstance(value, dict) or not isinstance(below.get(key), dict) or "kind" in value
        result[key] = value if whole else merged(below[key], value)
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError naming the file and what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def validated(model: type[Model], data: dict[str, Any], path: Path) -> Model:
    """`data` as `model`. Raises UserError with every wrong key of the file `path` and its remedy."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(describe(problem, model) for problem in error.errors())) from None


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put `section.key=value` into the tables; the value is TOML, or a bare string where it is not valid TOML."""
    dotted, equals, text = override.partition("=")
    *sections, key = (part.strip() for part in dotted.split("."))
    if not equals or not all((*sections, key)):
        raise UserError(f"override {override!r} is not of the form section.key=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(value, bool | int | float | str | list | dict):
        value = text  # a date, which no key takes: it is a name, such as run_dir=2026-01-31
    table = data
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UserError(f"override {override!r}: {section} is not a table")
    table[key] = value


def describe(problem: Any, model: type[BaseModel]) -> str:
    """One validation error of pydantic as a line: the key, what is wrong with it, and the nearest keys of `model`."""
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = known_keys(model, location[:-1])
        elsewhere = [key for key in all_keys(model) if key.split(".")[-1] == location[-1]]
        nearest = nearest_keys(location[-1], known)
        elsewhere.sort(key=lambda key: key.count("."))  # the common ones first
        meant = elsewhere + [".".join([*location[:-1], key]) for key in nearest]
        remedy = f"did you mean {' or '.join(meant)}?" if meant else f"known here: {', '.join(known)}"
        return f"unknown key {dotted}; {remedy}{PASSED_THROUGH.get(location[0], '')}"
    if problem["type"] == "missing":
        return f"{dotted} is missing; it has no default, so set it"
    message = problem["msg"].removeprefix("Value error, ")
    if not location:  # of several sections
        return message
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of several keys, which it names
        return f"{dotted}: {message}"
    return f"{dotted} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def nearest_keys(key: str, known: list[str]) -> list[str]:
    """The known key that is most like it, and a second one that is nearly as like; none where no key is."""
    found = difflib.get_close_matches(key, known, n=2)
    likeness = [difflib.SequenceMatcher(None, key, each).ratio() for each in found]
    return [each for each, ratio in zip(found, likeness, strict=True) if ratio > likeness[0] - 0.1]


def known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    section: Any = model
    parts = iter(location)
    for part in parts:
        if (field := section.model_fields.get(part)) is None:
            continue  # the kind of a section where there are several
        section = section_of(field) or section
        if get_origin(field.annotation) in (list, dict):
            next(parts, None)  # the place in a list of sections, or the name of one
    return list(section.model_fields)


def all_keys(model: type[BaseModel]) -> list[str]:
    """The dotted keys of a section and of the sections in it."""
    keys = []
    for name, field in model.model_fields.items():
        section = section_of(field)
        named = f"{name}.NAME" if get_origin(field.annotation) is dict else name
        keys += [f"{named}.{key}" for key in all_keys(section)] if section else [name]
    return keys
