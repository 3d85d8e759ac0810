"""`r1distill eval --list`: the benchmarks and protocols that are shipped, as tables or as JSON."""

import json
from typing import Any

from rich import box
from rich.table import Table

from r1distill.console import console
from r1distill.errors import UserError
from r1distill.evaluate.protocols import PROTOCOLS, asking_of, load_protocol, protocol_sha256
from r1distill.evaluate.tasks import Task, load_task, published_scores, rerun_band
from r1distill.resources import shipped_names

MODEL = "DeepSeek-R1-Distill-Qwen-7B"
METRICS = ("pass@1", "cons@64", "rating")


def list_benchmarks(model: str = "", *, as_json: bool = False) -> None:
    """Print them, with the published scores of `model`, which a part of its name is enough for. See `found_model`."""
    tasks = [load_task(name) for name in shipped_names("eval", ".toml")]
    model = found_model(model or MODEL, tasks)
    if as_json:
        print(json.dumps(as_tables(tasks), ensure_ascii=False, indent=1, allow_nan=False))
        return
    console.print(benchmark_table(tasks, model))
    console.print(protocol_table())


def found_model(part: str, tasks: list[Task]) -> str:
    """The one published model with this name, or with this in its name. Raises UserError where it is none or several."""
    known = sorted({name for task in tasks for published in task.published for name in published.scores})
    found = [part] if part in known else [name for name in known if part.lower() in name.lower()]
    if len(found) != 1:
        which = "nobody's published name" if not found else f"in the names of {', '.join(found)}"
        raise UserError(f"--published {part}: {which}; give one of: {', '.join(known)}")
    return found[0]


def benchmark_table(tasks: list[Task], model: str) -> Table:
    table = Table(title="Benchmarks", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("name", "title", "kind"):
        table.add_column(name, no_wrap=name == "name")
    for name in ("questions", "n"):
        table.add_column(name, justify="right")
    for name in ("licence", "from", model, "re-run lands in"):
        table.add_column(name)
    for task in tasks:
        asking = asking_of(task)
        band = rerun_band(task, model, asking.samples)
        table.add_row(
            task.name,
            task.title,
            task.kind,
            f"{task.questions:,}" if task.questions else "–",
            str(asking.samples),
            task.license,
            where_from(task),
            published_cell(task, model),
            f"{band[0]:.1f} to {band[1]:.1f}" if band else "–",
        )
    return table


def where_from(task: Task) -> str:
    data = task.data
    parts = [data.path, data.subset or "", "" if data.files else data.split]
    revision = f"@{data.revision[:7]}" if data.revision else ""
    return " ".join(filter(None, parts)) + revision


def published_cell(task: Task, model: str) -> str:
    """`55.5 (deepseek-r1), 50.8 (open-r1), cons@64 83.3 (deepseek-r1)`."""
    scores = [(metric, *found) for metric in METRICS for found in published_scores(task, model, metric)]
    cells = [
        f"{'' if metric == 'pass@1' else f'{metric} '}{score:g} ({published.protocol or 'no protocol of ours'})"
        for metric, score, published in scores
    ]
    return ", ".join(cells) or "–"


def protocol_table() -> Table:
    table = Table(title="Protocols", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("name", "version", "sha256", "what", "sampling", "system", "reply begins", "source"):
        table.add_column(name, no_wrap=name in ("name", "sha256"))
    for protocol in map(load_protocol, shipped_names(PROTOCOLS, ".toml")):
        table.add_row(
            protocol.name,
            str(protocol.version),
            protocol_sha256(protocol)[:12],
            protocol.title,
            f"temperature {protocol.temperature:g}, top_p {protocol.top_p:g}, {protocol.max_tokens:,} tokens",
            protocol.system or "none",
            repr(protocol.prefill),
            protocol.source,
        )
    return table


def as_tables(tasks: list[Task]) -> dict[str, Any]:
    """Everything in the files, with what follows of it: the text of each prompt, hashes, bands by model."""
    return {
        "benchmarks": [benchmark_entry(task) for task in tasks],
        "protocols": [
            {**protocol.model_dump(), "sha256": protocol_sha256(protocol)}
            for protocol in map(load_protocol, shipped_names(PROTOCOLS, ".toml"))
        ],
    }


def benchmark_entry(task: Task) -> dict[str, Any]:
    asking = asking_of(task)
    models = {name for published in task.published for name in published.scores}
    bands = {name: rerun_band(task, name, asking.samples) for name in sorted(models)}
    asked = {**asking.decisive, "samples": asking.samples, "prompt_file": asking.prompt.name}
    return {**task.model_dump(), "protocol": asking.summary(), "asked": asked, "bands": bands}
