"""The sections of the recipe but training's. The docstring of a field is its documentation in README.md."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from r1distill.filter_sections import Clusters, EntropyFilter, Pools, Quality
from r1distill.section import Between, Section
from r1distill.selection_sections import Balance, Rule


class Problems(Section):
    """What is asked."""

    path: str = Field(default="", min_length=1)
    """For `generate`: JSONL, JSON, CSV or Parquet file, a folder, a Hub dataset id, `reasoning_gym:TASK,…?size=…&seed=…`."""
    split: str = "train"
    """Split of a Hub dataset."""
    subset: str | None = None
    """Configuration name of a Hub dataset."""
    revision: str | None = None
    """Git revision of a Hub dataset."""
    files: list[str] | None = None
    """Files of a Hub dataset instead of a split, for sets that only a script of theirs would load."""
    where: dict[str, bool | int | str | Between] = {}
    """Take these rows only, by the set's own columns: `{ contest_date = { at_least = "2024-08", at_most = "2025-01" } }`."""
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
    model: str = Field(default="", min_length=1)
    """To sample or score with: Hub id, folder, or `quickstart:teacher`."""
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
    """Which traces are taught. Dropped ones stay in decisions.parquet, each with its reason: the first rule that speaks."""

    require_correct: bool = True
    """Drop what is not verified as correct."""
    require_thinking: bool = True
    """Drop what has not exactly one `<think>…</think>`; false for a teacher that does not reason in tags."""
    max_mean_entropy_nats: float = Field(default=0.85, ge=0)
    """Drop degenerate traces, those with a mean token entropy above this; 0 is off. Needs `generate.logprobs`."""
    entropy: EntropyFilter | None = None
    """Instead of that one limit. See `[filter.entropy]`."""
    quality: Quality | None = None
    """A score of each trace in tags.parquet. See `[filter.quality]`."""
    clusters: Clusters | None = None
    """Dense regions, and what is kept of each. See `[filter.clusters]`."""
    pools: Pools | None = None
    """What a curriculum draws from. See `[filter.pools]`."""
    drop_contaminated: bool = True
    """Drop traces of problems that are in a benchmark."""
    drop_duplicates: bool = True
    """Of traces that say nearly the same, keep one."""
    drop_duplicate_problems: bool = False
    """Of problems that ask nearly the same, keep the traces of one."""
    rules: list[Rule] = []
    """Rules of your own, in this order, after those above."""
    max_per_problem: int | None = Field(default=None, ge=1)
    """Keep at most so many traces of one problem."""
    max_per_problem_by: Literal["first", "shortest", "lowest_entropy", "most_diverse", "random"] = "first"
    """Which: those with the lowest sample number, the fewest tokens, the lowest mean entropy, the least words in common, or
    any, drawn by `filter.seed`."""
    balance: list[Balance] = []
    """How many traces of each source, difficulty or length are kept, one after the other."""
    token_budget: int | None = Field(default=None, ge=1)
    """Keep no more tokens of the teacher's in all: the first traces by `token_budget_by`, of each source in proportion."""
    token_budget_by: Literal["random", "shortest", "lowest_entropy", "highest_entropy"] = "random"
    """Which a budget takes first: any, drawn by `filter.seed`, or by tokens or mean entropy. What is not measured comes last."""
    validation_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the problems whose traces go to the validation split."""
    seed: int | None = Field(default=None, ge=0)
    """Seeds what is drawn among the traces; absent is the recipe's seed."""
    student_perplexity: bool = False
    """Measure the perplexity of each trace under the student before training: a pass of `train.student` over all of them."""
    workers: int = Field(default=2, ge=1)
    """Processes that measure traces."""
    ray: str | None = None
    """Address of a Ray cluster whose machines measure them instead (HOST:PORT, or `auto`); they see the same `run_dir`."""

    @model_validator(mode="after")
    def reasons_are_apart(self) -> "Filter":
        for what, names in (
            ("rules", [each.name for each in self.rules]),
            ("balance", [each.by for each in self.balance]),
        ):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f'{what}: "{twice[0]}" is there twice; a reason has to tell which of them spoke')
        return self

    @property
    def needs_sketch(self) -> bool:
        """Whether the most diverse traces of a problem are asked for, which are told by their words."""
        return bool(self.max_per_problem) and self.max_per_problem_by == "most_diverse"

    @property
    def quality_measured(self) -> Quality | None:
        """How the quality of traces is scored; None where neither [filter.quality] nor what goes by quality asks for it."""
        return self.quality or (Quality() if self.clusters or self.pools else None)


class Cache(Section):
    """Where `[train.kl]` has the teacher's distributions from: kept while sampling, or scored (`r1distill cache`)."""

    source: Literal["generation", "vllm", "transformers"] = "generation"
    """`generation`: what `generate.keep_distributions` kept; `vllm`: prompt logprobs; `transformers`: whole distributions."""
    model: str | None = None
    """Hub id, folder, or `quickstart:teacher`; absent is `teacher.model`."""
    revision: str | None = None
    """Git revision on the Hub; absent with `model` is `teacher.revision`."""
    tokenizer: str | None = None
    """Hub id or folder of its tokenizer and chat template; absent is the model's own."""
    k: int = Field(default=64, ge=4, le=64)
    """Likeliest tokens asked for; those that hold 0.999 of the mass are kept, at least 4."""
    temperatures: list[float] = []
    """`transformers` only: temperatures besides 1 at which `train.kl.mode = "exact"` is to be had: `[2.0, 5.0]`."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights; logits are float32."""
    batch_tokens: int = Field(default=2048, ge=64)
    """Tokens whose logits are there at once, each of which takes several times 4 bytes an entry of the vocabulary."""
    model_args: dict[str, Any] = {}
    """`transformers` only: passed to `from_pretrained` (`device_map = "auto"`, …)."""
    engine: dict[str, Any] = {}
    """`vllm` only: vLLM's engine arguments, over those of `[teacher.engine]` where that model is scored."""

    @model_validator(mode="after")
    def nothing_is_set_in_vain(self) -> "Cache":
        unread = {
            "generation": (
                "model", "revision", "tokenizer", "k", "temperatures", "dtype", "batch_tokens", "model_args", "engine",
            ),
            "vllm": ("temperatures", "model_args"),
            "transformers": ("engine",),
        }[self.source]  # fmt: skip
        for name in unread:
            if getattr(self, name) != type(self).model_fields[name].default:
                remedy = "vllm" if name == "engine" else "transformers"
                raise ValueError(
                    f'{name} = {getattr(self, name)} means nothing where source = "{self.source}"; remove it, or set source = '
                    f'"{remedy}"'
                )
        return self

    @model_validator(mode="after")
    def temperatures_are_others_than_1(self) -> "Cache":
        if not all(1e-3 <= temperature <= 100 and temperature != 1 for temperature in self.temperatures) or len(
            set(self.temperatures)
        ) < len(self.temperatures):
            raise ValueError(
                f"temperatures = {self.temperatures}: each between 0.001 and 100, once, and without 1, which needs none"
            )
        return self

    @model_validator(mode="after")
    def logprobs_are_of_the_model(self) -> "Cache":
        for name, remedy in (("dtype", "set cache.dtype"), ("max_num_batched_tokens", "set cache.batch_tokens")):
            if name in self.engine:
                raise ValueError(f"engine.{name} = {self.engine[name]}: {remedy} instead")
        if self.engine.get("logprobs_mode", "raw_logprobs") != "raw_logprobs":
            raise ValueError(f'engine.logprobs_mode = "{self.engine["logprobs_mode"]}": only raw_logprobs; remove it')
        return self


class Candidate(Section):
    """A model to be scored, by the name it has in `eval.models`: what a folder or Hub id alone does not say."""

    model: str = Field(min_length=1)
    """Hub id or folder; with `urls`, the name by which the server knows it."""
    revision: str | None = None
    """Git revision on the Hub."""
    adapter: str | None = None
    """Folder of a LoRA adapter of it (peft's), which vLLM puts over it."""
    urls: list[str] = []
    """OpenAI-compatible base URLs that end in /v1, in place of an engine in this process."""
    api_key_env: str = "OPENAI_API_KEY"
    """`urls` only: the environment variable that holds the key, where one is needed."""
    engine: dict[str, Any] = {}
    """vLLM's engine arguments, over those of `[eval.engine]`."""

    @model_validator(mode="after")
    def a_server_has_what_it_serves(self) -> "Candidate":
        for name in ("adapter", "engine", "revision"):
            if self.urls and getattr(self, name):
                raise ValueError(f"{name} means nothing where urls are given: the server has it or has not; remove it")
        return self


# models that a run makes, each of the one before, and the stage that does
MADE_BY = {"pruned": "prune", "student": "train", "on_policy": "on_policy", "quantized": "quantize"}
ROLES = ("base", "teacher", *MADE_BY)


class Eval(Section):
    """How models are scored. The protocol and the task's own file decide what is not set here."""

    tasks: list[str] = []
    """Names of eval/*.toml, or paths of your own."""
    models: list[str] = Field(default=["base", "student"], min_length=1)
    """Whom to score: `base` (untrained), `teacher`, `pruned` (untrained too), `student`, `on_policy`, `quantized`, a candidate,
    folder or Hub id."""
    candidates: dict[str, Candidate] = {}
    """Other models by a name of yours."""
    protocol: str | None = Field(default=None, min_length=1)
    """How questions are asked: a name of eval/protocols, or the path of one of yours; absent, what each task names."""
    data: dict[str, str] = {}
    """Where the questions of a task are instead of where its file says: `{ math500 = "data/math500.jsonl" }`."""
    data_dir: str | None = None
    """A folder with the benchmarks' files or folders by the names of the tasks, for those that `data` does not name."""
    samples: int | None = Field(default=None, ge=1)
    """Samples for each question, instead of the protocol's."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many questions."""
    temperature: float | None = Field(default=None, ge=0)
    """Instead of the protocol's."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Instead of the protocol's."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Instead of the protocol's."""
    prefill: str | None = None
    """Forced start of the reply, instead of the protocol's."""
    enough: float | None = Field(default=None, gt=0, lt=1)
    """Stop taking samples of a benchmark whose interval over samples is no wider to either side: 0.01 is a point."""
    concurrency: int = Field(default=256, ge=1)
    """Requests in flight at once."""
    engine: dict[str, Any] = {}
    """vLLM's engine arguments for all but the teacher, which is scored with `[teacher]`."""

    @model_validator(mode="after")
    def data_are_of_the_tasks(self) -> "Eval":
        if unread := [name for name in self.data if name not in (Path(task).stem for task in self.tasks)]:
            raise ValueError(f"data.{unread[0]}: no such task in tasks ({', '.join(self.tasks)}); correct or remove it")
        return self

    @model_validator(mode="after")
    def every_model_is_known(self) -> "Eval":
        for name in self.candidates:
            if name in ROLES or not re.fullmatch(r"[\w][\w.-]*", name):
                raise ValueError(
                    f"candidates.{name}: a name is letters, digits, _ . and -, and none of {', '.join(ROLES)}"
                )
        for name in self.models:
            if not (name in ROLES or name in self.candidates or "/" in name or Path(name).is_dir()):
                known = ", ".join((*ROLES, *self.candidates))
                raise ValueError(f'models: "{name}" is none of {known}, and no folder or Hub id (org/name); correct it')
        return self
