"""The files that a recipe names, and the room for what it writes."""

import importlib
import os
import shutil
from pathlib import Path

from r1distill.doctor.findings import Finding, attempt, error, ok, warning
from r1distill.doctor.reading import Launch, Model
from r1distill.evaluate.benchmarks import asking_in
from r1distill.evaluate.tasks import Task, load_task
from r1distill.filter.public_traces import traces_path
from r1distill.problems import local_path
from r1distill.procedural import is_procedural
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe
from r1distill.resources import find_file
from r1distill.train_sections import Train, chat_template_text
from r1distill.verify.judge import load_judge_prompt

BYTES_OF_TYPE = {"bfloat16": 2, "float32": 4}
MOMENTS = 2  # of AdamW, in the type of the weights
SHARDED_OPTIMIZER = 12  # bytes a parameter of FSDP and DeepSpeed: float32 master weights and both moments
MEAN_REPLY = 5355  # tokens of a trace of DeepSeek-R1's own 800k (arXiv 2501.12948)
TRACE_BYTES = 12  # a token in the journal and in the Parquet file: its text, its id, their compression
ROW_BYTES = 8  # an entry of a sparse distribution: id and logprob
NEARLY = 0.8


def check_files(recipe: Recipe, run_folder: Path) -> tuple[list[Finding], list[Task], dict[str, str]]:
    """Findings, the tasks, and the texts of the prompts by who uses them."""
    findings: list[Finding] = []
    prompts: dict[str, str] = {}
    found, problem = attempt(
        "files", "generate.prompt", lambda: load_prompt(recipe.generate.prompt, recipe.generate.prefill)
    )
    findings += problem
    prompts["generate.prompt"] = found.text if found else ""
    if traces := recipe.traces:
        findings += attempt("files", "traces.path", lambda: traces_path(traces))[1]
    elif not is_procedural(recipe.problems.path):
        findings += attempt("files", "problems.path", lambda: local_path(recipe.problems.path))[1]
    findings += attempt("files", "train.chat_template", lambda: chat_template_text(recipe.train))[1]
    if judge := recipe.verify.judge:
        findings += attempt("files", "verify.judge.prompt", lambda: load_judge_prompt(judge.prompt))[1]
    if file := recipe.train.launch.get("config_file"):
        findings += attempt("files", "train.launch", lambda: find_file(str(file), "train.launch.config_file"))[1]
    tasks = []
    for name in recipe.eval.tasks:
        task, problem = attempt("files", f"eval.tasks {name}", lambda name=name: load_task(name))
        findings += problem
        if task is not None:
            tasks.append(task)
            asking, problem = attempt("files", f"{name}: prompt", lambda task=task: asking_in(recipe, task))
            findings += problem
            if asking is not None:
                prompts[name] = asking.prompt.text
    if not recipe.eval.tasks:
        findings.append(warning("files", "eval.tasks", "empty", "the stage eval needs one", 'tasks = ["math500"]'))
    findings += check_writable(run_folder)
    names = ", ".join(["prompt", "traces" if recipe.traces else "problems", *(task.name for task in tasks)])
    return (
        findings or [ok("files", "files of the recipe", f"{names}: found; {run_folder} can be written")],
        tasks,
        prompts,
    )


def check_writable(folder: Path) -> list[Finding]:
    there = existing(folder)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    return [error("files", "run_dir", folder, f"{there} cannot be written", "choose another run_dir, or its rights")]


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def parameters_of(model: Model) -> int:
    """Counted on a model without storage (torch's meta device)."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    with torch.device("meta"):
        bare = transformers.AutoModelForCausalLM.from_config(model.config)
    return bare.num_parameters()


def student_bytes(parameters: int, settings: Train, launch: Launch) -> dict[str, int]:
    """What training leaves on the disk at its fullest: a checkpoint more than are kept, while the oldest is removed.

    A checkpoint has the weights and, unless `save_only_model`, AdamW's two moments in the same type; with FSDP or DeepSpeed
    12 bytes a parameter. That of an adapter is small beside the merged student.
    """
    final = 2 * BYTES_OF_TYPE["bfloat16"] * parameters  # beside the one that is put in its place
    if settings.peft is not None or settings.args.get("save_strategy") == "no":
        return {"checkpoints": 0, "student": final}
    weights = BYTES_OF_TYPE[settings.dtype]
    optimizer = SHARDED_OPTIMIZER if launch.kind in ("fsdp", "deepspeed") else MOMENTS * weights
    each = parameters * (weights + (0 if settings.args.get("save_only_model") else optimizer))
    limit = settings.args.get("save_total_limit", 2)
    kept = limit if isinstance(limit, int) else 10  # save_steps = 0.1
    return {"checkpoints": (kept + 1) * each, "student": final}


def sampling_bytes(recipe: Recipe, problems: int) -> dict[str, int]:
    """Of traces, and of their distributions where they are kept, at most; replies as long as DeepSeek-R1's are."""
    settings = recipe.generate
    tokens = problems * settings.samples * min(MEAN_REPLY, settings.max_tokens)
    rows = tokens * settings.logprobs * ROW_BYTES if settings.keep_distributions else 0
    return {"traces": tokens * TRACE_BYTES, "teacher_cache": rows}


def check_disk(folder: Path, parts: dict[str, int]) -> list[Finding]:
    """The sum of the parts, in bytes, against what is free where the run is."""
    free = shutil.disk_usage(existing(folder)).free
    needed = sum(parts.values())
    limit = f"{gigabytes(free)} free at {existing(folder)}"
    if not parts:
        return [ok("disk and memory", "disk", f"{limit}; what will be written is not known")]
    value = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)
    if needed > NEARLY * free:
        remedy = "run_dir on a larger disk, or train.args.save_total_limit = 1"
        return [(error if needed > free else warning)("disk and memory", "disk", value, limit, remedy)]
    return [ok("disk and memory", "disk", f"{value}, of {limit}")]


def gigabytes(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.2g} GB"
