"""`--dry-run`: what every stage would do, resolved, without doing any of it."""

from functools import partial
from pathlib import Path
from typing import Any

from r1distill.cache.settings import engine_of, scorer_of
from r1distill.chain.links import teacher_of_rounds
from r1distill.console import say
from r1distill.errors import UserError
from r1distill.evaluate.benchmarks import asking_in, data_in
from r1distill.evaluate.tasks import load_task
from r1distill.filter.public_traces import named_set, traces_path
from r1distill.gpus import visible_gpus
from r1distill.pipeline import statuses, why_not_needed
from r1distill.preflight import needed_by
from r1distill.problems import files_read, local_path, options_of, read_problems
from r1distill.procedural import is_procedural
from r1distill.prompting import load_prompt
from r1distill.recipe import Recipe, refuse_missing
from r1distill.run import Run
from r1distill.sections import Generate
from r1distill.traces_section import Traces
from r1distill.train.stage import launch_command, resolved_launch
from r1distill.train_sections import chat_template_text
from r1distill.verify.judge import load_judge_prompt

# sections of [train] that change what is taught, or how
TECHNIQUES = ("kl", "hidden", "attention", "controller", "qat", "clip", "curriculum", "restarts")


def show_plan(run: Run, recipe_path: Path) -> None:
    """Print the plan. Raises UserError for what the recipe names and this machine does not have."""
    recipe = run.recipe
    say(f"recipe  {recipe_path}")
    say(f"folder  {run.folder}")
    plans = {
        "generate": partial(plan_generate, recipe),
        "verify": partial(plan_verify, recipe),
        "filter": partial(plan_filter, recipe),
        "cache": partial(plan_cache, recipe),
        "prune": partial(plan_prune, recipe),
        "train": partial(plan_train, run),
        "on_policy": partial(plan_on_policy, recipe),
        "quantize": partial(plan_quantize, recipe),
        "eval": partial(plan_eval, recipe),
    }
    for status in statuses(run):
        state, why = status.state, status.why
        if state != "done" and (reason := why_not_needed(status.stage.name, recipe)):
            state, why = "not needed", reason
        say(f"\n{status.stage.name}  [{state}{': ' + why if why else ''}]", style="bold")
        try:
            refuse_missing(recipe, status.stage.name, *needed_by(status.stage.name, recipe))
        except UserError as missing:
            say(f"  {missing}")
            continue
        for line in plans[status.stage.name]():
            say(f"  {line}")


def plan_generate(recipe: Recipe) -> list[str]:
    if recipe.traces is not None:
        return [*plan_import(recipe.traces), *plan_prompt(recipe.generate, "of the dataset; no teacher is asked")]
    settings, teacher, section = recipe.generate, recipe.teacher, recipe.problems
    path = local_path(section.path)
    lines = []
    limit = f", the first {section.limit:,}" if section.limit else ""
    if path is None and not is_procedural(section.path):
        split = f"{section.subset or 'default'}/{section.split}"
        lines.append(f"problems  {section.path} ({split}) from the Hub{limit} (not fetched in a dry run)")
    else:
        tolerate = "unusable" if section.check else "expected"
        reading = read_problems(section.path, **options_of(section), tolerate=tolerate)
        total = len(reading.problems) * settings.samples
        unusable = f"{len(reading.unusable):,} more set aside, " if reading.unusable else ""
        lines.append(
            f"problems  {path or section.path}: {len(reading.problems):,}, {unusable}so {total:,} samples at most"
        )
    where = " ".join(teacher.urls) if teacher.backend == "server" else f"vLLM in this process{options(teacher.engine)}"
    lines.append(f"teacher   {teacher.model}: {where}")
    stop = f", until {settings.stop_after_correct} correct" if settings.stop_after_correct else ""
    lines.append(
        f"sampling  {settings.samples} a problem{stop}, temperature {settings.temperature:g}, top_p {settings.top_p:g}, "
        f"at most {settings.max_tokens:,} tokens, top {settings.logprobs} logprobs, {settings.concurrency} at once"
    )
    return lines + plan_prompt(settings, f"no system message, reply starts {settings.prefill!r}")


def plan_import(section: Traces) -> list[str]:
    path = traces_path(section)
    limit = f", the first {section.limit:,} rows" if section.limit else ""
    where = f"{path}: {size_of(path, section)}"
    if path is None:
        what = " ".join(section.files) if section.files else f"{section.subset or 'default'}/{section.split}"
        where = f"{section.path} ({what}) from the Hub"
    model, license = named_set(section)
    return [
        f"traces    {where}{limit}, columns: {section.format} (not read in a dry run)",
        f"sampled   by {model or 'nobody known'}, not here; licence {license or 'unknown'}",
    ]


def size_of(path: Path | None, section: Traces) -> str:
    files = files_read(path, section.files) if path else []
    many = f" in {len(files):,} files" if len(files) > 1 else ""
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB{many}"


def plan_prompt(settings: Generate, note: str) -> list[str]:
    prompt = load_prompt(settings.prompt, settings.prefill)
    return [
        f"prompt    {settings.prompt} (sha256 {prompt.sha256[:12]}), {note}",
        *(f"          │ {line}" for line in prompt.text.splitlines()),
    ]


def plan_verify(recipe: Recipe) -> list[str]:
    settings = recipe.verify
    if recipe.traces is not None and recipe.traces.verdicts == "theirs":
        return ["the labels of the set (traces.verdicts), nothing is judged"]
    lines = [f"Math-Verify in {settings.workers} processes, at most {settings.timeout_s:g} s a reply"]
    if judge := settings.judge:
        prompt = load_judge_prompt(judge.prompt)
        lines.append(f"judge     {judge.model}: {' '.join(judge.urls)}, asked about {', '.join(judge.ask)}")
        lines.append(f"prompt    {judge.prompt} (sha256 {prompt.sha256[:12]})")
    return lines


def plan_filter(recipe: Recipe) -> list[str]:
    settings = recipe.filter
    rules = ["ended by itself", "one <think>…</think> and an answer" if settings.require_thinking else "an answer"]
    if settings.require_correct:
        rules.insert(1, "correct")
    if settings.max_mean_entropy_nats:
        rules.append(f"mean entropy at most {settings.max_mean_entropy_nats:g} nats")
    if settings.max_per_problem:
        rules.append(f"at most {settings.max_per_problem} a problem")
    lines = [f"keep what {', '.join(rules)}"]
    if settings.validation_fraction:
        lines.append(f"{settings.validation_fraction:.1%} of the problems for validation")
    return lines


def plan_cache(recipe: Recipe) -> list[str]:
    settings = recipe.cache
    if settings.source == "generation":
        kept = "are kept while sampling" if recipe.generate.keep_distributions else "are not kept"
        return [f"distributions of the teacher {kept} (generate.keep_distributions)"]
    if settings.source == "vllm":
        engine = f"vLLM in this process{options(engine_of(recipe))}, top {settings.k} logprobs"
    else:
        at = ", ".join(f"{temperature:g}" for temperature in [1.0, *settings.temperatures])
        engine = (
            f"transformers{options(settings.model_args)}, top {settings.k} of whole distributions, at temperature {at}"
        )
    scorers = [f"{each.model} ({each.name}, weight {each.weight:g})" for each in recipe.teachers] or [
        scorer_of(recipe).model
    ]
    return [
        *(f"teacher   {scorer}: {engine}, {settings.dtype}" for scorer in scorers),
        f"scores    the kept traces, logits of {settings.batch_tokens:,} tokens at once",
    ]


def plan_on_policy(recipe: Recipe) -> list[str]:
    settings = recipe.on_policy
    if settings is None:
        return []
    problems = f"{settings.limit:,} problems" if settings.limit else "the problems"
    return [
        f"rounds    {settings.rounds}, {settings.samples} of the student's own samples for {problems} each",
        f"teacher   {teacher_of_rounds(recipe)[0]}, in the training; {settings.divergence} divergence alone",
    ]


def plan_quantize(recipe: Recipe) -> list[str]:
    what = {"int8": "weights and activations", "int8_weights": "weights"}
    if recipe.quantize is None:
        return []
    kept = f"; as they are: {', '.join(recipe.quantize.ignore)}" if recipe.quantize.ignore else ""
    return [f"{what[recipe.quantize.scheme]} in 8 bits, as vLLM reads them{kept}"]


def plan_prune(recipe: Recipe) -> list[str]:
    settings = recipe.prune
    if settings is None:
        return []
    shares = {"layers": settings.depth, "feed-forward channels": settings.ffn, "heads": settings.heads}
    taken = ", ".join(f"{share:.0%} of the {what}" for what, share in shares.items() if share) or "anything taken out"
    return [f"student   {recipe.train.student} without {taken}, the least important for {settings.examples} traces"]


def plan_train(run: Run) -> list[str]:
    settings = run.recipe.train
    adapter = f"LoRA{options(settings.peft)}" if settings.peft is not None else "full fine-tuning"
    lines = [
        f"student   {settings.student}: {adapter}, {settings.dtype}{options(settings.model_args)}",
        f"lengths   at most {settings.max_length:,} tokens; longer: {settings.overlong}",
    ]
    if settings.rope_parameters or settings.max_position_embeddings:
        lines.append(
            f"positions {settings.max_position_embeddings or 'as they are'}, RoPE {settings.rope_parameters or 'as it is'}"
        )
    if settings.chat_template:
        chat_template_text(settings)
        lines.append(
            f"template  {settings.chat_template}, ends with {settings.eos_token or 'the tokenizer’s own token'}"
        )
    for name in TECHNIQUES:
        if (section := getattr(settings, name)) is not None:
            said = section.model_dump(exclude_none=True)
            lines.append(f"{name:<9} {', '.join(f'{key} = {value}' for key, value in said.items())}")
    lines.append("SFTConfig " + ", ".join(f"{key} = {value}" for key, value in settings.args.items()))
    command = launch_command(resolved_launch(settings, len(visible_gpus())), str(run.folder))
    lines.append(f"command   {' '.join(['python', *command[1:]])}")
    return lines


def plan_eval(recipe: Recipe) -> list[str]:
    settings = recipe.eval
    lines = [f"models    {', '.join(settings.models)}{options(settings.engine)}"]
    for name in settings.tasks:
        task = load_task(name)
        asking = asking_in(recipe, task)
        source = data_in(recipe, task).path
        try:
            found = local_path(source)
            source = str(found or source) if found or is_procedural(source) else f"{source} from the Hub"
        except UserError as error:
            raise UserError(f"task {name}: {error}") from None
        lines.append(
            f"{name:<9} {task.title}: {asking.samples} samples a question, temperature {asking.temperature:g}, "
            f"top_p {asking.top_p:g}, at most {asking.max_tokens:,} tokens; {Path(asking.prompt.name).name} (sha256 "
            f"{asking.prompt.sha256[:12]}), protocol {asking.protocol} {asking.version} (sha256 {asking.sha256[:12]}); {source}"
        )
    return lines


def options(table: dict[str, Any] | None) -> str:
    return " (" + ", ".join(f"{key} = {value}" for key, value in table.items()) + ")" if table else ""
