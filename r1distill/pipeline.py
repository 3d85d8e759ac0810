"""The stages in their order: what each depends on, which are done, and which a changed recipe makes to be done again."""

import hashlib
import importlib
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from r1distill.cache.settings import manifest_of, scorer_of, scoring_recipes, why_not_scored
from r1distill.cache.stage import cache_stage
from r1distill.console import clock as clock_text
from r1distill.console import library_output_to, say
from r1distill.errors import UserError
from r1distill.evaluate.benchmarks import asking_in, data_in
from r1distill.evaluate.contestants import contestant_of
from r1distill.evaluate.stage import eval_stage
from r1distill.evaluate.tasks import load_task
from r1distill.filter.card import IMPORTED
from r1distill.filter.public_traces import LABELS
from r1distill.filter.stage import filter_stage
from r1distill.generate.journal import has_samples
from r1distill.models import fingerprint
from r1distill.preflight import preflight
from r1distill.problems import files_of, local_path
from r1distill.procedural import is_procedural, procedural_version
from r1distill.prompting import load_prompt
from r1distill.prune.stage import prune_stage
from r1distill.quantize.stage import quantize_stage
from r1distill.recipe import Recipe
from r1distill.resources import find_file
from r1distill.run import Clock, Run
from r1distill.sections import MADE_BY
from r1distill.store import file_sha256, write_json
from r1distill.traces_stage import decisive, generate_stage, verdicts_stage
from r1distill.train.stage import train_stage
from r1distill.train_sections import chat_template_text
from r1distill.verify.judge import load_judge_prompt


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline. `sections` of the recipe decide its result, without the keys of `SPEED_ONLY`."""

    name: str
    function: Callable[[Run, Clock], dict[str, Any]]
    after: str | None
    sections: tuple[str, ...]
    outputs: tuple[str, ...]  # names in the run folder that a redo sets aside


def on_policy(run: Run, clock: Clock) -> dict[str, Any]:
    """Runs stages itself, so that its module stands above this one."""
    return importlib.import_module("r1distill.chain.command").on_policy_stage(run, clock)


TEACHER_CACHE = "teacher_cache"

STAGES = (
    Stage(
        "generate",
        generate_stage,
        None,
        ("problems", "teacher", "generate", "seed"),
        (
            "problems.parquet",
            "problems_set_aside.jsonl",
            "problems_duplicates.jsonl",
            "traces",
            IMPORTED,
            LABELS,
            TEACHER_CACHE,
        ),
    ),
    # the judge's replies stay: each is known by all that decides it
    Stage("verify", verdicts_stage, "generate", ("verify",), ("verdicts.parquet",)),
    # tags.parquet and contamination.json stay: they know by themselves what they are of. Where benchmarks are read from in
    # eval.data is no input: who adds one to evaluate on would have to train again
    Stage(
        "filter",
        filter_stage,
        "verify",
        ("filter", "contamination"),
        ("decisions.parquet", "funnel.json", "dataset"),
    ),
    # what was scored is used again, unless it is of others (caches_of_others)
    Stage("cache", cache_stage, "filter", ("cache",), ()),
    # the student that is cut, and how the traces are read that it is measured on, are keys of [train]
    Stage("prune", prune_stage, "filter", ("prune",), ("pruned",)),
    Stage("train", train_stage, "filter", ("train",), ("student",)),
    # each round is a run of its own, which knows what of it is still good
    Stage("on_policy", on_policy, "train", ("on_policy",), ("on_policy/student",)),
    Stage("quantize", quantize_stage, "train", ("quantize",), ("quantized",)),
    # the journals of eval stay: a sample's identity has the model and the training that made it in it
    Stage("eval", eval_stage, "train", ("eval",), ()),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
OPTIONAL = ("prune", "on_policy", "quantize")  # which do nothing without the section of their name
# keys (and all below them) that change how fast a stage is and not what comes out of it
SPEED_ONLY = (
    "teacher.urls", "teacher.api_key_env", "teacher.timeout_s", "teacher.retries", "teacher.engine",
    "teacher.usd_per_million_tokens", "generate.concurrency", "generate.metrics_port", "verify.workers",
    "verify.judge.urls", "verify.judge.api_key_env", "verify.judge.timeout_s",
    "verify.judge.retries", "verify.judge.concurrency",
    "filter.workers", "filter.ray", "cache.batch_tokens", "cache.engine", "train.launch",
    "eval.concurrency", "eval.engine",
)  # fmt: skip
# keys of [train] that decide what is cut and measured, and with which template it is scored
READ_TO_PRUNE = {
    "student", "revision", "dtype", "tokenizer", "chat_template", "eos_token", "pad_token", "rope_parameters",
    "max_position_embeddings",
}  # fmt: skip
# keys of generate that can change while the samples taken so far stay good
EXTENDING = (
    "problems.limit", "problems.sha256", "problems.check", "problems.duplicates", "generate.samples",
    "generate.stop_after_correct", "generate.logprobs", "generate.max_samples", "generate.max_tokens",
    "generate.stop_repetition", "generate.keep_distributions", "teacher.tokenizer",
)  # fmt: skip


def predecessor(stage: Stage, recipe: Recipe) -> str | None:
    """The stage whose results it takes: for training with scored distributions that is `cache`, else `filter`."""
    if stage.name == "eval":
        last = [name for role, name in MADE_BY.items() if role in recipe.eval.models]
        return last[-1] if last else None
    if stage.name == "quantize" and recipe.on_policy:
        return "on_policy"
    if stage.name == "train" and recipe.prune:
        return "prune"
    return "cache" if stage.name in ("prune", "train") and why_not_scored(recipe) is None else stage.after


def why_not_needed(name: str, recipe: Recipe) -> str | None:
    """Why `run` has no use for a stage; None where it has."""
    if name == "cache":
        return why_not_scored(recipe)
    if name in OPTIONAL and getattr(recipe, name) is None:
        return f"there is no [{name}]"
    return None


def names_of_run(recipe: Recipe) -> list[str]:
    """The stages of `run`: all but those that are of no use for it."""
    return [name for name in STAGE_NAMES if why_not_needed(name, recipe) is None]


def inputs_of(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Everything in the recipe, and in the files that it names, that decides the result of a stage; flat."""
    settings = recipe.model_dump()
    flat: dict[str, Any] = {}
    is_import = stage.name == "generate" and recipe.traces is not None
    # rounds sample the problems even where the first traces were others'; what a run samples itself decides all that follows
    samples_anew = stage.name == "on_policy" and recipe.on_policy is not None and recipe.traces is not None
    sections = ("traces",) if is_import else (*stage.sections, *(STAGES[0].sections if samples_anew else ()))
    for section in sections:
        flatten(section, settings[section], flat)
    flat = without((*SPEED_ONLY, "traces.verdicts"), flat)
    if recipe.traces is not None:
        flat |= decisive(stage.name, recipe, recipe.traces)
    if (stage.name == "generate" and not is_import) or samples_anew:
        flat["generate.prompt.sha256"] = load_prompt(recipe.generate.prompt, "").sha256
        flat["problems.sha256"] = problems_sha256(recipe.problems.path) if recipe.problems.path else None
    if stage.name == "verify" and recipe.verify.judge:
        flat["verify.judge.prompt.sha256"] = load_judge_prompt(recipe.verify.judge.prompt).sha256
    if stage.name == "cache":
        flatten_scorers(recipe, flat)
    if stage.name == "prune" and recipe.prune:
        flatten("train", recipe.train.model_dump(include=READ_TO_PRUNE), flat)
    if stage.name == "train" and recipe.train.kl and not recipe.train.kl.online:
        flat["train.kl.source"] = recipe.cache.source
        for teacher in recipe.teachers:
            flatten(f"teachers.{teacher.name}", teacher.model_dump(include={"weight", "domains"}), flat)
    is_read = stage.name == "train" or (stage.name == "prune" and recipe.prune is not None)
    if is_read:
        if template := chat_template_text(recipe.train):
            flat["train.chat_template.sha256"] = hashlib.sha256(template.encode()).hexdigest()
        flatten("train.student.fingerprint", fingerprint(recipe.train.student), flat)
    if stage.name == "train" and (teacher := recipe.train.online_teacher):
        flatten("train.teacher.fingerprint", fingerprint(teacher), flat)
    if stage.name == "on_policy" and recipe.on_policy and recipe.on_policy.teacher:
        flatten("on_policy.teacher.fingerprint", fingerprint(recipe.on_policy.teacher), flat)
    if stage.name == "eval":
        flatten_models_and_tasks(recipe, flat)
    return flat


def flatten_scorers(recipe: Recipe, into: dict[str, Any]) -> None:
    """Who scores, and with [[teachers]] what each of them does."""
    for name, each in scoring_recipes(recipe).items():
        which = f"cache.{name}" if name else "cache"
        flatten(which, {**manifest_of(each), "tokenizer": scorer_of(each).tokenizer}, into)
    for teacher in recipe.teachers:
        flatten(f"cache.{teacher.name}.domains", teacher.domains, into)


def flatten_models_and_tasks(recipe: Recipe, into: dict[str, Any]) -> None:
    """Who is scored and on what. Models that stages of the run make are known by those."""
    for entry in recipe.eval.models:
        if entry not in MADE_BY:
            scored = contestant_of(Run(recipe), entry)
            flatten(f"eval.models.{entry}", {"model": scored.model, "version": scored.version}, into)
    for name in recipe.eval.tasks:
        task = load_task(name)
        flatten(f"eval.tasks.{name}", task.model_dump(include={"name", "kind", "data"}), into)
        asking = asking_in(recipe, task)
        into[f"eval.tasks.{name}.protocol"] = f"{asking.protocol} {asking.version}"
        into[f"eval.tasks.{name}.protocol.sha256"] = asking.sha256
        into[f"eval.tasks.{name}.samples"] = asking.samples
        into[f"eval.tasks.{name}.data.sha256"] = problems_sha256(data_in(recipe, task).path)


def problems_sha256(path: str) -> str | None:
    """Of the file, or of those of a folder; None for a set on the Hub; for procedural ones the release that makes them."""
    if is_procedural(path):
        return procedural_version()
    found = local_path(path)
    if found is None or found.is_file():
        return found and file_sha256(found)
    hashes = "\n".join(map(file_sha256, files_of(found)))
    return hashlib.sha256(hashes.encode()).hexdigest()


def without(keys: tuple[str, ...], flat: dict[str, Any]) -> dict[str, Any]:
    """`flat` without these dotted keys and all below them."""
    return {key: value for key, value in flat.items() if not any(f"{key}.".startswith(f"{cut}.") for cut in keys)}


def flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            flatten(f"{prefix}.{key}", entry, into)
    elif value not in (None, {}):
        into[prefix] = value if isinstance(value, bool | int | float | str | list) else str(value)  # dates: as in JSON


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences of two flat settings, in words."""
    words = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new:
            words.append(f"{key} {short(old)} → {short(new)}")
    return words


def short(value: Any) -> str:
    text = "absent" if value is None else str(value).replace("\n", "\\n") or '""'
    return text if len(text) <= 40 else f"{text[:37]}…"


@dataclass(frozen=True)
class Status:
    """Whether a stage has to run, and why."""

    stage: Stage
    state: str  # done | unfinished | to do | outdated
    why: str = ""
    changed: bool = False  # its own settings, and not only what it is made from


def statuses(run: Run) -> list[Status]:
    """The state of every stage, in order: a stage is outdated if its settings changed or one before it runs again."""
    found: list[Status] = []
    rerun: dict[str, bool] = {}
    for stage in STAGES:
        record = run.record(stage.name)
        changed = changes(record["inputs"], inputs_of(stage, run.recipe)) if record else []
        after = predecessor(stage, run.recipe)
        upstream = run.record(after) if after else None
        if record is None:
            status = Status(stage, "to do")
        elif changed:
            status = Status(stage, "outdated", f"the recipe changed: {'; '.join(changed)}", changed=True)
        elif after and rerun[after]:
            status = Status(stage, "outdated", f"{after} runs again")
        elif record["upstream"] != (upstream or {}).get("finished_at"):
            status = Status(stage, "outdated", f"{after} ran again since")
        else:
            status = Status(stage, "done" if record["status"] == "done" else "unfinished")
        rerun[stage.name] = status.state != "done"
        found.append(status)
    return found


def run_stages(run: Run, names: Iterable[str], *, redo: bool = False, may_change: tuple[str, ...] = ()) -> None:
    """Run those of the named stages that are not done. Raises UserError before any work where the recipe cannot be run.

    `redo` and `may_change`: as for `refuse_other_recipe`.
    """
    names = list(names)
    for name in names:
        if name in OPTIONAL and (why := why_not_needed(name, run.recipe)):
            raise UserError(f"{name}: {why} in the recipe; add it (what an earlier one has made stays where it is)")
    refuse_other_recipe(run, redo, may_change)
    todo = [status for status in statuses(run) if status.stage.name in names and status.state != "done"]
    for status in todo:
        if status.state == "outdated":
            say(f"{status.stage.name} has to be done again: {status.why}", style="yellow")
    with library_output_to(run.log("preflight")):
        preflight(run.recipe, [status.stage.name for status in todo])
    if todo:  # otherwise the recipe.json there tells what made the results
        run.save_recipe(find_file(run.recipe.generate.prompt, "generate.prompt"))
    for name in names:
        # asked again for each: a stage that ran may have changed what the next has to do
        status, before = status_of(run, name)
        if status.state == "done":
            record = run.record(name) or {}
            say(f"✓ {name}: done before, in {clock_text(record['seconds'])}", style="green")
        elif before and before.state != "done":
            why = f" ({before.why})" if before.why else ""
            raise UserError(
                f"{name} needs what {before.stage.name} makes, which is {before.state}{why}: "
                f"r1distill {before.stage.name} RECIPE first (or r1distill run)"
            )
        else:
            run_stage(run, status)


def status_of(run: Run, name: str) -> tuple[Status, Status | None]:
    """The status of a stage and of the one whose results it takes."""
    found = {status.stage.name: status for status in statuses(run)}
    return found[name], found.get(predecessor(found[name].stage, run.recipe) or "")


def run_stage(run: Run, status: Status) -> None:
    stage = status.stage
    if status.state == "outdated":
        set_aside(run, stage, changed=status.changed)
    after = predecessor(stage, run.recipe)
    upstream = run.record(after) if after else None
    record: dict[str, Any] = {
        "stage": stage.name,
        "status": "running",
        "inputs": inputs_of(stage, run.recipe),
        "upstream": (upstream or {}).get("finished_at"),
        "seconds": (run.record(stage.name) or {}).get("seconds", 0.0) if status.state == "unfinished" else 0.0,
    }
    write_json(run.record_path(stage.name), record)
    say(f"▶ {stage.name}{' (continued)' if status.state == 'unfinished' else ''}", style="bold cyan")
    clock = Clock(run, stage.name)
    started = time.monotonic()
    # the training process keeps its own log, and so do the stages that on_policy runs
    with nullcontext() if stage.name in ("train", "on_policy") else library_output_to(run.log(stage.name)):
        counts = stage.function(run, clock)
    attempt = time.monotonic() - started
    tokens = counts.pop("tokens", None)
    # samples found in the journal cost this attempt nothing, so a speed is of all tokens in all seconds
    record |= {"status": "done", "finished_at": datetime.now().astimezone().isoformat()}
    record |= {"seconds": clock.seconds, "tokens": tokens, "counts": counts}
    record["tokens_per_second"] = tokens / clock.seconds if tokens else None
    write_json(run.record_path(stage.name), record)
    speed = f", {tokens:,} tokens, {record['tokens_per_second']:,.0f} tokens/s" if tokens else ""
    say(f"✓ {stage.name}: {clock_text(attempt)}{speed}", style="green")


def refuse_other_recipe(run: Run, redo: bool, may_change: tuple[str, ...] = ()) -> None:
    """A folder with samples of another recipe is not continued by mistake: they cost the most.

    Traces of others cost little, and are set aside. With `redo` samples are taken anew, and so they are where no more than the
    keys of `may_change` are others than they were.
    """
    record = run.record("generate")
    if record is None or redo or "traces.path" in record["inputs"] or not has_samples(run.journal):
        return
    before, now = record["inputs"], inputs_of(STAGES[0], run.recipe)
    cut = (*EXTENDING, *may_change)
    if changed := changes(without(cut, before), without(cut, now)):
        raise UserError(
            f"{run.folder} holds the samples of another recipe ({'; '.join(changed)}); set run_dir to a new folder, "
            "or add --redo to sample again here (the old samples stay in the journal)"
        )


def set_aside(run: Run, stage: Stage, *, changed: bool = True) -> None:
    """Move what an outdated stage made to superseded/, so that nothing computed is lost. `changed`: by its own settings."""
    target = run.folder / "superseded" / f"{stage.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
    scores = caches_of_others(run) if stage.name == "cache" and changed else []
    for name in (*stage.outputs, *scores, f"stages/{stage.name}.json"):
        if stage.name == "generate" and name == TEACHER_CACHE and run.recipe.cache.source != "generation":
            continue  # it was scored, and stays good when there are more samples
        source = run.folder / name
        if source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target / Path(name).name)
    if target.exists():
        say(f"  what {stage.name} made before is kept in {target}")


def caches_of_others(run: Run) -> list[str]:
    """What was scored by others than the recipe says. Each of [[teachers]] has a folder, which is theirs whoever is beside."""
    recipe = run.recipe
    before = (run.record("cache") or {}).get("inputs", {})
    now = inputs_of(STAGES[STAGE_NAMES.index("cache")], recipe)

    def of_all(inputs: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in inputs.items() if key.split(".")[1] in type(recipe.cache).model_fields}

    def of_one(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        found = {key: value for key, value in inputs.items() if key.startswith(f"cache.{name}.")}
        return without((f"cache.{name}.domains",), found)

    if not recipe.teachers or of_all(before) != of_all(now):
        return [TEACHER_CACHE]
    names = [teacher.name for teacher in recipe.teachers]
    return [f"{TEACHER_CACHE}/{name}" for name in names if of_one(name, before) not in ({}, of_one(name, now))]
