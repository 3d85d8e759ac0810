"""The commands. Nothing but wiring: every stage lives in its own room, and is only imported when it is asked for."""

import importlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from r1distill import __version__
from r1distill.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # "rich" would take [train.kl] for a style, and leave it out
    help="Distil the reasoning of a large teacher model into small students: generate, verify, filter, train, eval.",
)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[section.key=value]…", help="Settings put over the recipe's.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan of every stage and do nothing.")]
Redo = Annotated[
    bool, typer.Option("--redo", help="Use a folder that holds the samples of another recipe; they are kept.")
]


def main() -> None:
    """Run a command; what the user can mend ends in one line and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # TRL's import would set ERROR, and the engine's log in logs/ would not say why it ended
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? for →, and nothing ends
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer makes 130 of Ctrl-C
            raise
        print("\nstopped; the same command continues from here", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # everything is written and closed by now; what torch and vLLM do at an exit takes seconds


def room(module: str) -> Any:
    """A part of r1distill, imported now: `--help` must not wait for pyarrow and pydantic."""
    return importlib.import_module(f"r1distill.{module}")


def version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


def whole_run(recipe: str, overrides: list[str] | None, what: str, *keys: str, sampling: str | None = None) -> Any:
    """The run of a recipe in which none of these keys is missing, and neither is `sampling`, unless it has [traces]."""
    loaded = room("recipe").load_recipe(room("recipe").find_recipe(recipe), overrides or [])
    needed = [sampling] if sampling and loaded.traces is None else []
    room("recipe").refuse_missing(loaded, what, *needed, *keys)
    return room("run").Run(loaded)


def work(recipe: str, overrides: list[str] | None, names: tuple[str, ...] | None, dry_run: bool, redo: bool) -> None:
    """Run the named stages of a recipe (all for None), or show their plan."""
    path = room("recipe").find_recipe(recipe)
    run = room("run").Run(room("recipe").load_recipe(path, overrides or []))
    room("chain.links").refuse_chain(run.recipe, names[0].replace("_", "-") if names else "run")
    if dry_run:
        room("dry_run").show_plan(run, path)
        return
    pipeline, summary = room("pipeline"), room("summary")
    with room("run").locked(run):
        pipeline.run_stages(run, names or pipeline.names_of_run(run.recipe), redo=redo)
        result = summary.write_summary(run)
    if names is None:
        summary.show_summary(run, result)


@app.command()
def run(recipe: RecipeName, overrides: Overrides = None, dry_run: DryRun = False, redo: Redo = False) -> None:
    """All stages: generate, verify, filter, cache and prune where they are needed, train, eval. Finished ones are skipped."""
    work(recipe, overrides, None, dry_run, redo)


def stage_command(name: str, description: str) -> Callable[..., None]:
    def command(recipe: RecipeName, overrides: Overrides = None, dry_run: DryRun = False, redo: Redo = False) -> None:
        work(recipe, overrides, (name.replace("-", "_"),), dry_run, redo)

    command.__doc__ = description
    return app.command(name)(command)


stage_command("generate", "Sample the teacher: problems → traces.")


@app.command()
def serve(
    recipe: RecipeName,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command or configuration and the GPUs it needs.")
    ] = False,
) -> None:
    """Put the teacher behind a URL, on this node or over a Ray cluster, for teacher.backend=server."""
    run = whole_run(recipe, overrides, "serve", "teacher.model")
    if dry_run:
        room("serve.command").show_serving(run, recipe, overrides or [])
    else:
        raise typer.Exit(room("serve.command").serve(run, recipe, overrides or []))


@app.command()
def doctor(
    recipe: RecipeName,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Everything that can be known to be wrong before an hour is spent; exit code 2 where something is."""
    run = whole_run(recipe, overrides, "doctor", "train.student", sampling="teacher.model")
    raise typer.Exit(room("doctor.command").doctor(run, as_json=as_json))


@app.command()
def verify(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="As for the other stages.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option("--file", help="Judge the replies of this JSONL file instead.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the verdicts on --file go (JSONL).")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="The tool that wrote and graded --file: lm-eval, lighteval, evalplus or livecodebench."
        ),
    ] = None,
    problems: Annotated[
        str | None,
        typer.Option("--problems", help="For --from: the benchmark (its name, or a file) with the answers or tests."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="For --from: the published score to compare with.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes for --file and --audit.")] = 2,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=0.01, help="Seconds for one reply of --file, or to compare two answers.")
    ] = 10.0,
    sandbox: Annotated[
        str, typer.Option("--sandbox", help="For programs of --file: required (bubblewrap), or unsafe.")
    ] = "required",
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="RUN", help="Draw cases of this run for a person to mark.")
    ] = None,
    marks: Annotated[Path | None, typer.Option("--marks", help="Read the marks on --audit: error rates.")] = None,
    n: Annotated[int, typer.Option("--n", min=10, help="Cases of --audit.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Which cases --audit draws.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Judge traces: traces → verdicts. With --file, any published generations. With --audit, how often it is wrong."""
    if audit is not None:
        if recipe is not None or file is not None:
            raise UserError("verify --audit RUN takes no recipe and no --file")
        module = room("verify.audit")
        if marks is not None:
            print(module.read_audit(audit, marks))
        else:
            print(module.make_audit(audit, cases=n, seed=seed, workers=workers, timeout_s=timeout_s))
    elif marks is not None:
        raise UserError("verify --marks needs --audit RUN, the folder whose cases were marked")
    elif file is not None:
        if out is None or recipe is not None:
            raise UserError("verify --file IN.jsonl needs --out OUT.jsonl and no recipe")
        if sandbox not in ("required", "unsafe"):
            raise UserError(f"--sandbox {sandbox}: it must be required or unsafe")
        code = room("verify.code").CodeSettings(allow_unsafe=sandbox == "unsafe")
        if source is not None:
            regrade = room("evaluate.regrade")
            options = {"problems": problems, "metric": metric, "workers": workers, "timeout_s": timeout_s, "code": code}
            print(regrade.described(regrade.regrade_file(file, source, out, **options), out))
            return
        if problems is not None or metric is not None:
            raise UserError("verify --problems and --metric need --from, the tool that wrote --file")
        counts = room("verify.rescore").rescore_file(file, out, workers=workers, timeout_s=timeout_s, code=code)
        print(
            f"{counts.total()} verdicts in {out}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
        )
    elif recipe is not None:
        work(recipe, overrides, ("verify",), dry_run, False)
    else:
        raise UserError("verify needs a recipe, or --file IN.jsonl --out OUT.jsonl, or --audit RUN")


stage_command("filter", "Choose what is taught: verdicts → decisions, funnel and dataset.")
stage_command("cache", "Score the kept traces with the teacher, for [train.kl]: decisions → teacher_cache.")
stage_command("prune", "Take layers, channels and heads out of the student, for [prune]: dataset → pruned.")


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    redo: Redo = False,
    join: Annotated[
        bool, typer.Option("--join", help="Join the training that another machine leads (train.slurm).")
    ] = False,
) -> None:
    """Fine-tune the student: dataset → student."""
    if join:
        path = room("recipe").find_recipe(recipe)
        room("train.stage").join(room("run").Run(room("recipe").load_recipe(path, overrides or [])))
    else:
        work(recipe, overrides, ("train",), dry_run, redo)


@app.command()
def ablate(recipe: RecipeName, overrides: Overrides = None, dry_run: DryRun = False, redo: Redo = False) -> None:
    """Students taught with and without filters, on equally many tokens, several seeds each: which filter helps."""
    run = whole_run(recipe, overrides, "ablate", "train.student", "eval.tasks")
    room("ablate.command").ablate(run, dry_run=dry_run, redo=redo)


stage_command("on-policy", "Train the student on its own samples, for [on_policy]: student → on_policy/student.")


stage_command("quantize", "Write the trained student in 8 bits, for [quantize]: student → quantized.")


@app.command()
def chain(recipe: RecipeName, overrides: Overrides = None, dry_run: DryRun = False, redo: Redo = False) -> None:
    """Teacher → assistant → student: every student of [[chain]] teaches the next, each in a run of its own."""
    run = whole_run(recipe, overrides, "chain", "problems.path", "eval.tasks", sampling="teacher.model")
    room("chain.command").chain(run, dry_run=dry_run, redo=redo)


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", help="8xH100, 2x8xH200, 4x48GB, cpu; default: as many as [train.launch] has processes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    problems: Annotated[int | None, typer.Option(min=1, help="How many problems there are.")] = None,
    tokens: Annotated[float | None, typer.Option(min=1, help="Tokens of a trace in the mean.")] = None,
    right: Annotated[float | None, typer.Option(min=0.01, max=1, help="How often the teacher is right.")] = None,
    mfu: Annotated[float | None, typer.Option(min=0.001, max=1, help="Model FLOPs utilisation of training.")] = None,
    usd_per_gpu_hour: Annotated[float | None, typer.Option(min=0, help="Price of one GPU for an hour.")] = None,
) -> None:
    """What training takes in memory by part, which layouts fit, hours and money: from the models' configs alone."""
    run = whole_run(recipe, overrides, "plan", "train.student", sampling="teacher.model")
    given = room("plan.counts").Given(problems, tokens, right, mfu, usd_per_gpu_hour)
    room("plan.command").plan_command(run, recipe, gpus, given, json_only=as_json)


@app.command("eval")
def evaluate(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="As for the other stages.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    redo: Redo = False,
    as_list: Annotated[bool, typer.Option("--list", help="Print the benchmarks and protocols there are.")] = False,
    published: Annotated[
        str, typer.Option("--published", metavar="MODEL", help="Whose published scores --list shows.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="--list for machines, with every prompt.")] = False,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Judge the stored replies again; no model is opened.")
    ] = False,
    verify_band: Annotated[
        bool,
        typer.Option("--verify-band", help="Say whether known models score where re-runs land; exit code 1 if not."),
    ] = False,
) -> None:
    """Score models on benchmarks: summary.json. With --list, what they can be scored on."""
    if as_list:
        if recipe is not None:
            raise UserError("eval --list takes no recipe")
        room("evaluate.listing").list_benchmarks(published, as_json=as_json)
    elif published or as_json:
        raise UserError("eval --published and --json need --list")
    elif recipe is None:
        raise UserError("eval needs a recipe, or --list")
    elif dry_run and (regrade or verify_band):
        raise UserError("eval --regrade and --verify-band have no --dry-run: they sample nothing")
    else:
        if not regrade:
            work(recipe, overrides, ("eval",), dry_run, redo)
        if regrade or verify_band:
            look_again(recipe, overrides, regrade=regrade, verify_band=verify_band)


def look_again(recipe: str, overrides: list[str] | None, *, regrade: bool, verify_band: bool) -> None:
    run, again = whole_run(recipe, overrides, "eval"), room("evaluate.again")
    with room("run").locked(run):
        if regrade:
            again.show_regraded(again.regrade(run))
        if verify_band and not again.show_bands(again.bands(run)):
            raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="lm-eval, lighteval or model-index.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="A folder; default: RUN/export/FORMAT.")] = None,
) -> None:
    """The scores of a run in the form of another tool, or of a model card of the Hub."""
    for path in room("evaluate.export").export(folder, to, out):
        print(path)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    to: Annotated[
        str, typer.Option("--to", help="ORG/NAME of the Hub, a folder (./name) or file:///path.", show_default=False)
    ],
    what: Annotated[str, typer.Option("--what", help="dataset or student.")] = "dataset",
    format: Annotated[
        str | None, typer.Option("--format", help="The dataset as trl, sharegpt (LLaMA-Factory) or openr1.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A repository that only you can see.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch of the repository.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, say what would go, and send nothing.")] = False,
) -> None:
    """The dataset of a run, or its student, to the Hub (token in HF_TOKEN) or a folder."""
    options = {"what": what, "format": format, "private": private, "revision": revision, "dry_run": dry_run}
    room("filter.publish").publish(folder, to, **options)


@app.command()
def show(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run, or RUN/eval/TASK/MODEL.", show_default=False)
    ],
    trace: Annotated[
        str | None, typer.Option("--id", metavar="PROBLEM[/SAMPLE]", help="The traces of a problem, or one.")
    ] = None,
    dropped: Annotated[
        str | None, typer.Option("--dropped", metavar="REASON", help="Traces that were dropped for this reason.")
    ] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Traces that were kept.")] = False,
    draw: Annotated[bool, typer.Option("--random", help="Draw them, in place of the first ones.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Which --random draws.")] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many; 1, or all of --id.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Whole texts, in place of their head and tail.")] = False,
    funnel: Annotated[bool, typer.Option("--funnel", help="What became of the traces, as tables.")] = False,
) -> None:
    """Print the summary of a run, finished or not; or its funnel, or traces with their verdict and tags."""
    if seed is not None and not draw:
        raise UserError("show --seed needs --random")
    if trace is not None or dropped is not None or kept or draw:
        if funnel:
            raise UserError("show --funnel takes no option for traces")
        wish = room("show.choose").Wish(trace, dropped, kept, seed, n)
        room("show.command").show_traces(folder, wish, draw=draw, full=full)
    elif n is not None or full:
        raise UserError("show -n and --full need --id, --dropped, --kept or --random")
    elif funnel:
        room("show.funnel").show_funnel(folder)
    else:
        run = room("run").open_run(folder)
        room("summary").show_summary(run, room("summary").summarise(run))


@app.command()
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="RUN, RUN:MODEL (base, student, …), or RUN/eval/TASK/MODEL.", show_default=False
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.", show_default=False)],
    any_protocol: Annotated[
        bool, typer.Option("--any-protocol", help="Compare scores of another protocol, prompt, data or sampling too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines, with every question that changed.")] = False,
) -> None:
    """B against A, question by question: difference, interval, p-value, what changed, and what could be seen."""
    room("evaluate.compare").compare_command(a, b, any_protocol=any_protocol, as_json=as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    samples: Annotated[
        int | None, typer.Option(min=1, help="Embed at most so many traces a question and model; all by default.")
    ] = None,
) -> None:
    """Write RUN/report.html: scores, charts and every trace of a run, finished or not, in one file for a browser."""
    print(room("report.command").write_report(folder, samples))
