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

from r1distill.cache.settings import manifest_of, recipes_of, scorer_of, why_not_scored
from r1distill.cache.stage import cache_stage
from r1distill.chain.links import teacher_of_rounds
from r1distill.console import clock as clock_text
from r1distill.console import library_output_to, say
from r1distill.errors import UserError, require_packages
from r1distill.evaluate.benchmarks import asking_in, data_in
from r1distill.evaluate.contestants import check_contestants
from r1distill.evaluate.stage import eval_stage
from r1distill.evaluate.tasks import load_task
from r1distill.filter.card import IMPORTED
from r1distill.filter.public_traces import LABELS, traces_path
from r1distill.filter.stage import filter_stage
from r1distill.generate.journal import has_samples
from r1distill.models import check_model_name
from r1distill.problems import files_of, local_path
from r1distill.procedural import is_procedural, procedural_version
from r1distill.prompting import load_prompt
from r1distill.prune.stage import prune_stage
from r1distill.quantize.stage import quantize_stage
from r1distill.recipe import Recipe, refuse_missing
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
    growing: tuple[str, ...] = ()  # those too, but only where its own settings changed: what is in them is used again


def on_policy(run: Run, clock: Clock) -> dict[str, Any]:
    """Runs stages itself, so that its module stands above this one."""
    return importlib.import_module("r1distill.chain.command").on_policy_stage(run, clock)


KEPT_WHILE_SAMPLING = "teacher_cache"

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
            KEPT_WHILE_SAMPLING,
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
    Stage("cache", cache_stage, "filter", ("cache",), (), ("teacher_cache",)),
    # the student that is cut, and how the traces are read that it is measured on, are keys of [train]
    Stage("prune", prune_stage, "filter", ("prune",), ("pruned",)),
    Stage("train", train_stage, "filter", ("train",), ("student",)),
    Stage("on_policy", on_policy, "train", ("on_policy",), ("on_policy",)),
    Stage("quantize", quantize_stage, "train", ("quantize",), ("quantized",)),
    # the journals of eval stay: a sample's identity has the model and the training that made it in it
    Stage("eval", eval_stage, "train", ("eval",), ()),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
# keys (and all below them) that change how fast a stage is and not what comes out of it
SPEED_ONLY = (
    "teacher.urls", "teacher.api_key_env", "teacher.timeout_s", "teacher.retries", "teacher.engine",
    "teacher.usd_per_million_tokens", "generate.concurrency", "generate.metrics_port", "verify.workers",
    "verify.judge.urls", "verify.judge.api_key_env", "verify.judge.timeout_s",
    "verify.judge.retries", "verify.judge.concurrency",
    "filter.workers", "filter.ray", "cache.batch_tokens", "cache.engine", "train.launch",
    "eval.concurrency", "eval.engine",
)  # fmt: skip
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
    if name in ("prune", "on_policy", "quantize") and getattr(recipe, name) is None:
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
    for section in ("traces",) if is_import else stage.sections:
        flatten(section, settings[section], flat)
    flat = without((*SPEED_ONLY, "traces.verdicts"), flat)
    if recipe.traces is not None:
        flat |= decisive(stage.name, recipe, recipe.traces)
    if stage.name == "generate" and not is_import:
        flat["generate.prompt.sha256"] = load_prompt(recipe.generate.prompt, "").sha256
        flat["problems.sha256"] = problems_sha256(recipe.problems.path)
    if stage.name == "verify" and recipe.verify.judge:
        flat["verify.judge.prompt.sha256"] = load_judge_prompt(recipe.verify.judge.prompt).sha256
    if stage.name == "cache":
        for name, each in (recipes_of(recipe) or {"": recipe}).items():
            which = f"cache.{name}" if name else "cache"
            flatten(which, {**manifest_of(each), "tokenizer": scorer_of(each).tokenizer}, flat)
    if stage.name == "prune" and recipe.prune:
        train = recipe.train
        read = (
            "student",
            "revision",
            "dtype",
            "tokenizer",
            "chat_template",
            "rope_parameters",
            "max_position_embeddings",
        )
        flatten("train", train.model_dump(include=set(read)), flat)
    if stage.name == "train" and recipe.train.kl and not recipe.train.kl.online:
        flat["train.kl.source"] = recipe.cache.source
        for teacher in recipe.teachers:
            flatten(f"teachers.{teacher.name}", teacher.model_dump(include={"weight", "domains"}), flat)
    if stage.name == "train" and (template := chat_template_text(recipe.train)):
        flat["train.chat_template.sha256"] = hashlib.sha256(template.encode()).hexdigest()
    if stage.name == "eval":
        for name in recipe.eval.tasks:
            task = load_task(name)
            flatten(f"eval.tasks.{name}", task.model_dump(include={"name", "kind", "data"}), flat)
            asking = asking_in(recipe, task)
            flat[f"eval.tasks.{name}.protocol"] = f"{asking.protocol} {asking.version}"
            flat[f"eval.tasks.{name}.protocol.sha256"] = asking.sha256
            flat[f"eval.tasks.{name}.samples"] = asking.samples
            flat[f"eval.tasks.{name}.data.sha256"] = problems_sha256(data_in(recipe, task).path)
    return flat


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


def run_stages(run: Run, names: Iterable[str], *, redo: bool = False) -> None:
    """Run those of the named stages that are not done. Raises UserError before any work where the recipe cannot be run."""
    names = list(names)
    refuse_other_recipe(run, redo)
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
        set_aside(run, stage, growing=status.changed)
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


def refuse_other_recipe(run: Run, redo: bool) -> None:
    """A folder with samples of another recipe is not continued by mistake: they cost the most.

    Traces of others cost little, and are set aside.
    """
    record = run.record("generate")
    if record is None or redo or "traces.path" in record["inputs"] or not has_samples(run.journal):
        return
    before, now = record["inputs"], inputs_of(STAGES[0], run.recipe)
    if changed := changes(without(EXTENDING, before), without(EXTENDING, now)):
        raise UserError(
            f"{run.folder} holds the samples of another recipe ({'; '.join(changed)}); set run_dir to a new folder, "
            "or add --redo to sample again here (the old samples stay in the journal)"
        )


def set_aside(run: Run, stage: Stage, *, growing: bool = True) -> None:
    """Move what an outdated stage made to superseded/, so that nothing computed is lost; what is `growing` if asked."""
    target = run.folder / "superseded" / f"{stage.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
    for name in (*stage.outputs, *(stage.growing if growing else ()), f"stages/{stage.name}.json"):
        if stage.name == "generate" and name == KEPT_WHILE_SAMPLING and run.recipe.cache.source != "generation":
            continue  # it was scored, and stays good when there are more samples
        source = run.folder / name
        if source.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target / Path(name).name)
    if target.exists():
        say(f"  what {stage.name} made before is kept in {target}")


def needed_by(stage: str, recipe: Recipe) -> list[str]:
    """The keys without which a stage cannot run."""
    if stage == "eval":
        of_role = {"base": "train.student", "teacher": "teacher.model"}
        return [key for role, key in of_role.items() if role in recipe.eval.models]
    is_import = recipe.traces is not None
    return {
        "generate": [] if is_import else ["problems.path", "teacher.model"],
        "cache": ["cache.model" if is_import and recipe.cache.model else "teacher.model", "train.student"],
        "prune": ["train.student"],
        "train": ["train.student"],
        "on_policy": ["train.student"],
        "quantize": ["train.student"],
    }.get(stage, [])


def preflight(recipe: Recipe, names: list[str]) -> None:
    """Find before the first hour what would stop the last: missing extras, files, models, tasks, misspelt options."""
    for name in names:
        refuse_missing(recipe, name, *needed_by(name, recipe))
    engines: dict[str, dict[str, Any]] = {}
    if "generate" in names:
        load_prompt(recipe.generate.prompt, recipe.generate.prefill)
        if recipe.traces is not None:
            if traces_path(recipe.traces) is None:
                require_packages(f"reading {recipe.traces.path} from the Hub", "datasets")
        else:
            local_path(recipe.problems.path)
        if recipe.traces is None and recipe.teacher.backend == "vllm":
            require_packages("generate", "vllm")
            check_model_name(recipe.teacher.model, "teacher.model")
            engines["teacher.engine"] = recipe.teacher.engine
    if {"verify", "eval"} & set(names) and recipe.verify.judge:
        load_judge_prompt(recipe.verify.judge.prompt)
    if "cache" in names and recipe.cache.source != "generation":
        require_packages("cache", "torch", "transformers")
        for each in recipes_of(recipe).values() or [recipe]:
            scorer = scorer_of(each)
            check_model_name(scorer.model, scorer.key)
        if recipe.cache.source == "vllm":
            require_packages("cache", "vllm")
            engines["cache.engine"] = recipe.cache.engine
    if "prune" in names:
        require_packages("prune", "torch", "transformers")
        check_model_name(recipe.train.student, "train.student")
    if "on_policy" in names and recipe.on_policy:
        check_model_name(teacher_of_rounds(recipe), "on_policy.teacher")
    if "quantize" in names:
        require_packages("quantize", "torch", "transformers", "compressed_tensors")
    if "train" in names and recipe.train.qat:
        require_packages("[train.qat]", "torchao")
    if "train" in names:
        require_packages("train", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
        check_model_name(recipe.train.student, "train.student")
        if recipe.train.online_teacher:
            check_model_name(recipe.train.online_teacher, "the teacher of [train]")
        chat_template_text(recipe.train)
        if "config_file" in recipe.train.launch:
            find_file(str(recipe.train.launch["config_file"]), "train.launch.config_file")
    if "eval" in names:
        if not recipe.eval.tasks:
            raise UserError("eval.tasks is empty; name a task (r1distill run quickstart --dry-run shows one)")
        for name in recipe.eval.tasks:
            task = load_task(name)
            asking_in(recipe, task)
            local_path(data_in(recipe, task).path)
        check_contestants(recipe)
        if recipe.eval.models != ["teacher"] or recipe.teacher.backend == "vllm":
            require_packages("eval", "vllm")
            engines["eval.engine"] = recipe.eval.engine
            engines |= {f"eval.candidates.{name}.engine": each.engine for name, each in recipe.eval.candidates.items()}
    # these imports take seconds, so they come after everything that needs none
    for section, engine in engines.items():
        importlib.import_module("r1distill.generate.vllm_engine").check_engine_arguments(section, engine)
    if "train" in names:
        importlib.import_module("r1distill.train.options").check_options(recipe.train)
    if "prune" in names or ("train" in names and (recipe.train.qat or recipe.quantize)):
        importlib.import_module("r1distill.student_check").check_student(recipe, names)
