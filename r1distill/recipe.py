"""The recipe: pydantic models over TOML, then `section.key=value`. Unknown keys are errors that name the nearest one.

The reference in README.md is made from these models (`reference`), so the docstring of a field is its documentation.
Values that follow from others are functions or properties, never stored fields.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from r1distill.errors import UserError
from r1distill.resources import SHIPPED, read_file, shipped_names

RECIPES = "scripts/recipes"
# where an unknown key of a section may have been meant to go
PASSED_THROUGH = {
    "train": "; TRL's options go in [train.args]",
    "teacher": "; vLLM's options go in [teacher.engine]",
    "eval": "; vLLM's options go in [eval.engine]",
    "serve": "; vLLM's options go in [teacher.engine]",
}
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Settings of one stage. Frozen: nothing changes a recipe after it was read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Problems(Section):
    """What is asked."""

    path: str = Field(min_length=1)
    """JSONL or Parquet file, a folder of them, a Hub dataset id, or `reasoning_gym:TASK,…?size=…&seed=…`."""
    split: str = "train"
    """Split of a Hub dataset."""
    subset: str | None = None
    """Configuration name of a Hub dataset."""
    revision: str | None = None
    """Git revision of a Hub dataset."""
    columns: dict[str, str] = {}
    """Renames columns to ours where the built-in table does not know them: `{ answer = "final_answer" }`."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many problems."""
    check: bool = True
    """Set aside, before a token is spent, what no reply could be judged by: problems_set_aside.jsonl has the reasons."""
    duplicates: Literal["report", "drop", "ignore"] = "report"
    """Near duplicates: name them in problems_duplicates.jsonl, or also leave them out; `ignore` looks for conflicts only."""


class Teacher(Section):
    """Who answers."""

    backend: Literal["vllm", "server"] = "vllm"
    """`vllm`: engine in this process; `server`: OpenAI-compatible URLs."""
    model: str
    """Hub id, folder, or `quickstart:teacher`."""
    revision: str | None = None
    """Git revision on the Hub."""
    tokenizer: str | None = None
    """Hub id or folder of its tokenizer, where the name a server knows it by is neither; read for `keep_distributions` only."""
    urls: list[str] = []
    """`server` only: base URLs that end in /v1; requests go to the one with the fewest in flight."""
    api_key_env: str = "OPENAI_API_KEY"
    """`server` only: the environment variable that holds the key, where one is needed."""
    timeout_s: float = Field(default=3600, gt=0)
    """`server` only: seconds for one request."""
    retries: int = Field(default=5, ge=0)
    """`server` only: attempts after the first, with exponential back-off, on 429, 5xx, time-outs and broken connections."""
    engine: dict[str, Any] = {}
    """vLLM's engine arguments, passed untouched (`tensor_parallel_size`, …): for the backend `vllm` and `r1distill serve`."""
    usd_per_million_tokens: float | None = Field(default=None, ge=0)
    """Price of sampled tokens, from which the live line estimates what the run has cost."""


class Serve(Section):
    """Where `r1distill serve` puts the teacher, for `backend = "server"`. Its engine is that of [teacher.engine]."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; `0.0.0.0` is all of them, and lets other machines in."""
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model behind the one URL, each on tensor × pipeline GPUs. More than one needs Ray."""
    ray: str = ""
    """Ray cluster to use the nodes of: `HOST:PORT`, or `auto` for the one that this node is in; "" is this node alone."""
    api_key_env: str = Field(default="VLLM_API_KEY", min_length=1)
    """The environment variable that holds the key requests must bring; where it is not set, none is asked for."""


class Generate(Section):
    """How the teacher is sampled. Defaults are DeepSeek's for R1."""

    prompt: str = "prompts/math.txt"
    """The user message, a file in which `{problem}` (and `{choices}`) is put in. There is no system message."""
    prefill: str = "<think>\n"
    """Start of the reply that is forced on the model and put back in front of what it says; "" for none."""
    samples: int = Field(default=1, ge=1)
    """Traces for each problem (the cap where `stop_after_correct` is set)."""
    stop_after_correct: int = Field(default=0, ge=0)
    """Stop sampling a problem after this many verified-correct traces; 0 takes all samples."""
    max_samples: int | None = Field(default=None, ge=1)
    """A problem without a correct trace among its `samples` is sampled on, one at a time, until one is or this many are taken."""
    stop_repetition: int = Field(default=512, ge=0)
    """End a trace whose last so many tokens are a loop, of at least four rounds: `finish_reason = "repetition"`; 0 never does."""
    thinking_budget: int = Field(default=0, ge=0)
    """Close the thinking by force after so many tokens, so that an answer follows within `max_tokens`; 0 never does."""
    temperature: float = Field(default=0.6, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling."""
    top_k: int = Field(default=0, ge=0)
    """Sample among the k likeliest tokens only; 0 is all."""
    max_tokens: int = Field(default=32768, ge=1)
    """Longest reply, in tokens; a longer one ends with `finish_reason = "length"`. A run with more continues these."""
    logprobs: int = Field(default=20, ge=0)
    """Top logprobs a token, from which entropy is measured; 0 records none."""
    keep_distributions: bool = False
    """Keep each token's distribution, as many of its top logprobs as hold 0.999 of the mass, in teacher_cache/ for training."""
    concurrency: int = Field(default=256, ge=1)
    """Requests in flight at once."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Serve the numbers of the live line for a Prometheus at http://127.0.0.1:PORT/metrics; 0 does not."""

    @model_validator(mode="after")
    def max_samples_are_no_fewer(self) -> "Generate":
        if self.max_samples is not None and self.max_samples < self.samples:
            raise ValueError(f"max_samples = {self.max_samples} is less than samples = {self.samples}; raise it")
        return self

    @model_validator(mode="after")
    def distributions_are_of_logprobs(self) -> "Generate":
        if self.keep_distributions and not self.logprobs:
            raise ValueError("keep_distributions needs logprobs, such as 20, and they are 0")
        return self


class Judge(Section):
    """An LLM that is asked where the rules are at a loss. Without this section there is none. See "The judge"."""

    model: str
    """Name of the model as its server knows it."""
    urls: list[str] = Field(min_length=1)
    """OpenAI-compatible base URLs that end in /v1; requests go to the one with the fewest in flight."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, where one is needed."""
    timeout_s: float = Field(default=600, gt=0)
    """Seconds for one request."""
    retries: int = Field(default=5, ge=0)
    """Attempts after the first, as for the teacher."""
    prompt: str = "prompts/judge.txt"
    """What the judge is asked, a file in which `{problem}`, `{reference}`, `{answer}` and `{boundary}` are put in."""
    ask: list[Literal["no_answer", "unverifiable", "timeout", "error", "disagreement"]] = Field(
        default=["no_answer", "unverifiable", "disagreement"], min_length=1
    )
    """Outcomes of the rules that it is asked about; `disagreement`: verdicts against the other samples of a problem."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = Field(default=2048, ge=1)
    """Longest reply, in tokens; one that is cut off changes nothing. A judge that reasons needs more."""
    concurrency: int = Field(default=64, ge=1)
    """Requests in flight at once."""


class Verify(Section):
    """How replies are judged."""

    timeout_s: float = Field(default=10, gt=0)
    """A verdict that takes longer is `timeout`; the worker is killed and replaced."""
    workers: int = Field(default=2, ge=1)
    """Worker processes."""
    memory_gb: float = Field(default=4, gt=0)
    """Address space of a worker."""
    sandbox: Literal["required", "unsafe"] = "required"
    """Where programs are run: `required` refuses to without bubblewrap, `unsafe` runs them in what there is."""
    test_timeout_s: float = Field(default=6, gt=0)
    """CPU time of a program for one test; the wall time may be three times that and 5 s."""
    total_timeout_s: float = Field(default=60, gt=0)
    """CPU time of a program for all of its tests."""
    program_memory_gb: float = Field(default=2, gt=0)
    """Memory in use by all processes of a program."""
    judge: Judge | None = None
    """Absent: the rules alone decide."""


class Filter(Section):
    """Which traces are taught. Dropped ones stay in decisions.parquet, each with its reason."""

    require_correct: bool = True
    """Drop what is not verified as correct."""
    require_thinking: bool = True
    """Drop what has not exactly one `<think>…</think>`; false for a teacher that does not reason in tags."""
    max_mean_entropy_nats: float = Field(default=0.85, ge=0)
    """Drop degenerate traces, those with a mean token entropy above this; 0 is off. Needs `generate.logprobs`."""
    max_per_problem: int | None = Field(default=None, ge=1)
    """Keep at most so many traces of one problem, those with the lowest sample number."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the problems whose traces go to the validation split."""


class Schedule(Section):
    """A number that changes over the training: `{ kind = "linear", start = 0.9, end = 0.3 }`, or "cosine", or in stages."""

    kind: Literal["linear", "cosine", "staged"]
    """`linear` and `cosine` go from `start` to `end`; `staged` takes `values[i]` from the share `at[i]` of the steps on."""
    start: float = 0.0
    """Value of the first step."""
    end: float = 0.0
    """Value of the last step."""
    values: list[float] = []
    """Of each stage."""
    at: list[float] = []
    """Where each stage begins, as a share of all steps; the first at 0."""

    @model_validator(mode="after")
    def is_whole(self) -> "Schedule":
        given = self.model_fields_set - {"kind"}
        wanted = {"values", "at"} if self.kind == "staged" else {"start", "end"}
        if given != wanted:
            raise ValueError(f'a schedule of kind "{self.kind}" has {" and ".join(sorted(wanted))}, and nothing else')
        if self.kind == "staged" and not (
            len(self.values) == len(self.at) > 0
            and self.at[0] == 0
            and all(0 <= first < second < 1 for first, second in zip(self.at, [*self.at[1:], 0.999999], strict=True))
        ):
            raise ValueError(
                f"values = {self.values}, at = {self.at}: as many, and `at` ascends from 0 and stays below 1"
            )
        return self


class Kl(Section):
    """L = alpha CE + (1 - alpha) T^2 KL(teacher || student), with the teacher's distributions of teacher_cache/."""

    alpha: float | Schedule = Schedule(kind="linear", start=0.9, end=0.3)
    """Share of the cross-entropy: a number, or a schedule. In stages, 0 first is KL alone and then both."""
    temperature: float | Schedule = 1.0
    """Of both distributions; the square of it is in the loss."""
    mode: Literal["exact", "conditional", "tail"] = "conditional"
    """How distributions are compared that are known by their likeliest tokens: see "Distributions of the teacher"."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """KL(teacher || student), KL(student || teacher), or the mean of both to their middle."""

    @model_validator(mode="after")
    def is_sound(self) -> "Kl":
        for name, least, most in (("alpha", 0.0, 1.0), ("temperature", 1e-3, 100.0)):
            schedule = getattr(self, name)
            bounds = [schedule]
            if isinstance(schedule, Schedule):
                bounds = schedule.values or [schedule.start, schedule.end]
            if not all(least <= value <= most for value in bounds):
                raise ValueError(f"{name} = {bounds}: between {least:g} and {most:g}")
        if self.mode == "tail" and self.temperature != 1.0:
            raise ValueError(
                f'mode = "tail" is sound at temperature 1 only, and it is {self.temperature}; take "conditional", or "exact" '
                "with a cache of whole distributions"
            )
        return self


class Train(Section):
    """How the student learns. What TRL, peft, accelerate and transformers own passes through untouched."""

    student: str
    """Hub id, folder, or `quickstart:student`."""
    revision: str | None = None
    """Git revision on the Hub."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights while training; float32 with `args.bf16 = true` is mixed precision."""
    max_length: int = Field(default=32768, ge=8)
    """Longest example, prompt and reply, in tokens."""
    overlong: Literal["drop", "error"] = "drop"
    """What happens to longer ones. They are counted, and never cut: a cut answer teaches not to answer."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's template, here and in the saved student."""
    eos_token: str | None = None
    """The token that ends a reply, where it differs from the tokenizer's. Base models need it: Qwen's ends documents."""
    pad_token: str | None = None
    """A padding token that is not the end token; found by itself where the tokenizer has a spare one."""
    rope_parameters: dict[str, Any] | None = None
    """RoPE of the student, as in transformers 5: `{ rope_type = "default", rope_theta = 3e5 }`."""
    max_position_embeddings: int | None = Field(default=None, ge=1)
    """Context length written into the student's config."""
    model_args: dict[str, Any] = {}
    """Passed to `from_pretrained` (`attn_implementation = "flash_attention_2"`, …)."""
    args: dict[str, Any] = {}
    """Passed to `trl.SFTConfig`."""
    peft: dict[str, Any] | None = None
    """Passed to `peft.LoraConfig`; absent is full fine-tuning. The saved student is merged."""
    kl: Kl | None = None
    """The divergence from the teacher; absent is plain fine-tuning."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over the vocabulary. Beside a divergence, which has that already, best 0."""
    launch: dict[str, Any] = {}
    """Flags of `accelerate launch` (`config_file`, `num_processes`, …); empty trains in one process."""


class Eval(Section):
    """How models are scored. A task's own file decides what is not set here."""

    tasks: list[str] = []
    """Names of eval/*.toml, or paths of your own."""
    models: list[Literal["base", "teacher", "student"]] = Field(default=["base", "student"], min_length=1)
    """Whom to score; `base` is the student before training."""
    samples: int | None = Field(default=None, ge=1)
    """Samples for each question, instead of the task's."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many questions."""
    temperature: float | None = Field(default=None, ge=0)
    """Instead of the task's."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Instead of the task's."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Instead of the task's."""
    prefill: str = "<think>\n"
    """Forced start of the reply, for every model alike."""
    concurrency: int = Field(default=256, ge=1)
    """Requests in flight at once."""
    engine: dict[str, Any] = {}
    """vLLM's engine arguments for base and student; the teacher is scored with `[teacher]`."""


class Recipe(Section):
    """Everything that decides a run."""

    run_dir: str = Field(min_length=1)
    """The folder of the run; the same folder continues it."""
    seed: int = Field(default=0, ge=0)
    """Seeds every sample (with its identity) and the training."""
    problems: Problems
    teacher: Teacher
    serve: Serve = Serve()
    generate: Generate = Generate()
    verify: Verify = Verify()
    filter: Filter = Filter()
    train: Train
    eval: Eval = Eval()


def find_recipe(name: str) -> Path:
    """A path, or the name of a shipped recipe (`quickstart`, `qwen2.5-math-7b`)."""
    if Path(name).exists() and not Path(name).is_dir():
        return Path(name)
    for candidate in (SHIPPED / RECIPES / f"{name}.toml", SHIPPED / name):
        if candidate.is_file():
            return candidate
    known = ", ".join(shipped_names(RECIPES, ".toml"))
    raise UserError(f"no such recipe: {name}; give the path of a TOML file or one of: {known}")


def load_recipe(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read, override, validate. Raises UserError with the key, the value and the remedy."""
    data = read_toml(path)
    for override in overrides:
        apply_override(data, override)
    return validated(Recipe, data, path)


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
        nearest = difflib.get_close_matches(location[-1], known, n=1)
        elsewhere.sort(key=lambda key: key.count("."))  # the common ones first
        meant = elsewhere + [".".join([*location[:-1], key]) for key in nearest]
        remedy = f"did you mean {' or '.join(meant)}?" if meant else f"known here: {', '.join(known)}"
        return f"unknown key {dotted}; {remedy}{PASSED_THROUGH.get(location[0], '')}"
    if problem["type"] == "missing":
        return f"{dotted} is missing; it has no default, so set it"
    message = problem["msg"]
    return f"{dotted} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    section: Any = model
    for part in location:
        section = section_of(section.model_fields[part])
    return list(section.model_fields)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, optional or not, or None for a plain value."""
    for annotation in (field.annotation, *get_args(field.annotation)):
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return annotation
    return None


def all_keys(model: type[BaseModel]) -> list[str]:
    """The dotted keys of a section and of the sections in it."""
    keys = []
    for name, field in model.model_fields.items():
        section = section_of(field)
        keys += [f"{name}.{key}" for key in all_keys(section)] if section else [name]
    return keys


def reference() -> str:
    """The recipe reference of README.md, in Markdown."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *reference_rows(Recipe, "")]
    return "\n".join(rows) + "\n"


def reference_rows(model: type[BaseModel], prefix: str) -> list[str]:
    """A row for each key of a section; the sections in it follow with a heading of their own."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            rows.append(reference_row(f"{prefix}{name}", field))
        else:
            below.append(f"| **[{prefix}{name}]** | | | {' '.join((section.__doc__ or '').split())} |")
            below += reference_rows(section, f"{prefix}{name}.")
    return rows + below


def reference_row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{toml_value(field.default)}`"
    description = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{name}` | {type_name(field.annotation)} | {default} | {description} |"


def type_name(annotation: Any) -> str:
    """A type as a person writes it: `int`, `list of str`, `"a" or "b"`."""
    if annotation is type(None) or annotation is Any:
        return ""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    arguments = get_args(annotation)
    if all(isinstance(argument, str) for argument in arguments):
        return " or ".join(f'"{argument}"' for argument in arguments)
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "table"
    return " or ".join(name for name in map(type_name, arguments) if name)


def toml_value(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\n", "\\n") + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return "{}" if value == {} else str(value)


def chat_template_text(train: Train) -> str | None:
    """The text of `train.chat_template`, or None where the tokenizer's own is used."""
    return read_file(train.chat_template, "train.chat_template") if train.chat_template else None
