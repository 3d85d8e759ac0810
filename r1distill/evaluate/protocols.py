"""Protocols as files: eval/protocols/*.toml says how questions are asked, whatever the benchmark.

What a protocol says, resolved with a task, is an `Asking`; its hash is kept with every score, and scores of different
hashes are not comparable. The number of replies is no part of it: more of them are the same question asked more often.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from r1distill.errors import UserError
from r1distill.evaluate.tasks import Task
from r1distill.prompting import CHOICE_LINE, LETTERS, Prompt, prompt_text
from r1distill.recipe import read_toml, validated
from r1distill.records import Problem
from r1distill.resources import SHIPPED, shipped_names
from r1distill.section import Section

PROTOCOLS = "eval/protocols"


class Prompts(Section):
    """Prompt files by the kind of the task."""

    math: str = "prompts/math.txt"
    choice: str = "prompts/choice.txt"
    code: str = "prompts/code.txt"
    starter_code: str | None = None
    """For code problems that come with code to complete, which goes where `{starter_code}` stands."""
    choice_line: str = CHOICE_LINE


class OfTask(Section):
    """What a protocol says of one benchmark by name. It goes before the benchmark's own file."""

    samples: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    starter_prompt: str | None = None
    choice_line: str | None = None


class Protocol(Section):
    """How questions are asked. A change of anything here needs another `version`."""

    name: str
    version: int = Field(ge=1)
    title: str
    source: str
    template: Literal["chat", "raw"] = "chat"
    """The tokenizer's chat template, or the prompt as plain text."""
    system: str = ""
    """System message; "" is none."""
    prefill: str = "<think>\n"
    """Start of the reply that is forced on the model."""
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int = Field(ge=1)
    samples: int | None = Field(default=None, ge=1)
    """Replies a question of a task that is not named below, instead of the task's own number."""
    choices_seed: int | None = None
    """Options are shuffled by the id of their problem and this; absent, they are asked in the order of the set."""
    prompts: Prompts = Prompts()
    tasks: dict[str, OfTask] = Field(default={})


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions of one task are asked: everything that decides it, with the exact text of the prompt.

    `changed` names what is not as the protocol says it. `prompt` has the system message, the
    template and the forced start of the reply too.
    """

    protocol: str
    version: int
    task: str
    prompt: Prompt
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    choices_seed: int | None
    samples: int
    changed: tuple[str, ...] = ()

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides how a question is asked, by name; that of the file alone names no text."""
        return {
            "template": self.prompt.template,
            "system": self.prompt.system,
            "prefill": self.prompt.prefill,
            "prompt": self.prompt.text,
            "starter_prompt": self.prompt.starter_text,
            "choice_line": self.prompt.choice_line,
            "choices_seed": self.choices_seed,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
        }

    @property
    def sha256(self) -> str:
        """The identity that is kept with a score."""
        text = json.dumps(self.decisive, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """For summary.json: {"name", "version", "sha256"}, and {"changed": […]} where the recipe changed something."""
        named = {"name": self.protocol, "version": self.version, "sha256": self.sha256}
        return {**named, "changed": list(self.changed)} if self.changed else named


def load_protocol(name: str) -> Protocol:
    """A protocol by the name of its file in eval/protocols/, or by a path. Raises UserError with the names there are."""
    path = Path(name).expanduser() if name.endswith(".toml") else SHIPPED / PROTOCOLS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(shipped_names(PROTOCOLS, ".toml"))
        raise UserError(f"eval.protocol: no such protocol: {name}; give the path of a TOML file or one of: {known}")
    return validated(Protocol, read_toml(path), path)


def asking_of(task: Task, protocol: str | None = None, **changes: Any) -> Asking:
    """How a task is asked under a protocol, or under its own where none is named. See `resolve`."""
    return resolve(load_protocol(protocol or task.protocol), task, **changes)


def resolve(protocol: Protocol, task: Task, **changes: Any) -> Asking:
    """How `task` is asked under `protocol`: what it says of the task by name, else the task's own, else its general rule.

    `changes` are the recipe's: samples, temperature, top_p, top_k, max_tokens, prefill; None changes nothing. Raises
    UserError where a prompt cannot be read, or asks nothing.
    """
    named = protocol.tasks.get(task.name, OfTask())
    prefill = changes.pop("prefill", None)
    file = named.prompt or task.prompt or getattr(protocol.prompts, task.kind)
    asking = Asking(
        protocol=protocol.name,
        version=protocol.version,
        task=task.name,
        prompt=Prompt(
            file,
            prompt_text(file),
            protocol.prefill,
            starter_text_of(protocol, task, named) if task.kind == "code" else "",
            (named.choice_line or task.choice_line or protocol.prompts.choice_line)
            if task.kind == "choice"
            else CHOICE_LINE,
            protocol.system,
            protocol.template,
        ),
        temperature=protocol.temperature if task.temperature is None else task.temperature,
        top_p=task.top_p or protocol.top_p,
        top_k=protocol.top_k,
        max_tokens=task.max_tokens or protocol.max_tokens,
        choices_seed=protocol.choices_seed if task.kind == "choice" else None,
        samples=named.samples or protocol.samples or task.samples,
    )
    wanted = {key: value for key, value in changes.items() if value is not None and value != getattr(asking, key)}
    if prefill is not None and prefill != protocol.prefill:
        wanted["prompt"] = dataclasses.replace(asking.prompt, prefill=prefill)
    changed = tuple("prefill" if key == "prompt" else key for key in wanted if key != "samples")
    return dataclasses.replace(asking, **wanted, changed=changed)


def starter_text_of(protocol: Protocol, task: Task, named: OfTask) -> str:
    """The prompt for code to complete, from where the other prompt is from: the two belong together."""
    levels = ((named.prompt, named.starter_prompt), (task.prompt, task.starter_prompt))
    file = next((starter for prompt, starter in levels if prompt), protocol.prompts.starter_code)
    return prompt_text(file) if file else ""


def protocol_sha256(protocol: Protocol) -> str:
    """Of everything in a protocol but what only describes it, and of the texts of the prompts that it names."""
    tables = protocol.model_dump(exclude={"name", "version", "title", "source"})
    files = {*filter(None, (value for key, value in tables["prompts"].items() if key != "choice_line"))}
    files |= {each[key] for each in tables["tasks"].values() for key in ("prompt", "starter_prompt") if each[key]}
    texts = {file: prompt_text(file) for file in files}
    text = json.dumps([tables, texts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------ the order of the options


def asked(problems: Iterable[Problem], asking: Asking) -> list[Problem]:
    """The problems as they are asked: with their options in the protocol's order, and the letter of the answer with them."""
    seed = asking.choices_seed
    return [problem if seed is None else shuffled(problem, seed) for problem in problems]


def shuffled(problem: Problem, seed: int) -> Problem:
    """A choice problem with its options in an order decided by its id and the seed alone; the id stays what it was."""
    choices = problem.choices
    if problem.kind != "choice" or not choices or not problem.answer:
        return problem
    right = LETTERS.index(problem.answer)
    order = sorted(range(len(choices)), key=lambda place: place_hash(problem.id, seed, place))
    return dataclasses.replace(problem, choices=[choices[place] for place in order], answer=LETTERS[order.index(right)])


def place_hash(problem_id: str, seed: int, place: int) -> str:
    return hashlib.sha256(f"{seed}/{problem_id}/{place}".encode()).hexdigest()
