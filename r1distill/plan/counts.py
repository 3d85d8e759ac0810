"""How much there is of everything: from the run's folder where it has it, else assumed, and every assumption is said."""

from dataclasses import dataclass, field

import pyarrow.compute as pc
import pyarrow.parquet as pq

from r1distill.evaluate.benchmarks import asking_in, data_in
from r1distill.evaluate.tasks import load_task
from r1distill.filter.card import IMPORTED
from r1distill.plan.speed import samples_expected
from r1distill.problems import local_path, options_of, read_problems
from r1distill.procedural import is_procedural
from r1distill.run import Run
from r1distill.sections import Problems
from r1distill.store import read_json
from r1distill.traces_section import Traces

TOKENS_A_SAMPLE = 5355  # of DeepSeek-R1's 804,745 samples on average (https://arxiv.org/abs/2501.12948, section 2.3.3)
PROMPT_TOKENS = 150
RIGHT = 0.75  # how often the teacher is, of problems with a checked answer
EVAL_TOKENS = 8000  # a reply of a student: R1's distilled ones take about 4,000 on MATH-500 and 12,000 on AIME
OTHER_PROBLEMS = 10_000
# rows of sets on the Hub, for none is fetched: of the split that is read by default
ROWS = {
    "open-r1/OpenR1-Math-220k": 93_733,
    "HuggingFaceH4/aime_2024": 30,
    "math-ai/aime25": 30,
    "math-ai/amc23": 40,
    "openai/gsm8k": 1319,
    "HuggingFaceH4/MATH-500": 500,
}


@dataclass
class Assumed:
    """What was not known, in words with the option that says it otherwise."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)


@dataclass(frozen=True, slots=True)
class Given:
    """What a person said on the command line; None is unsaid."""

    problems: int | None = None
    tokens: float | None = None
    right: float | None = None
    mfu: float | None = None
    usd_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Problems, sampled traces, examples of the dataset, and tokens of each. `tokens_an_example` has the prompt too."""

    problems: int
    samples: float
    tokens_a_sample: float
    examples: float
    tokens_an_example: float


def counts_of(run: Run, given: Given, assumed: Assumed) -> Counts:
    """Of the dataset of the run if there is one, else of what the recipe is expected to make of its problems."""
    recipe = run.recipe
    known = None if recipe.traces is None else imported_counts(run, recipe.traces, given, assumed)
    problems = known[0] if known else given.problems or problem_count(recipe.problems, "problems", assumed)
    dataset = run.dataset / "train.parquet"
    if dataset.is_file():
        column = pq.read_table(dataset, columns=["n_tokens"])["n_tokens"]
        examples = len(column)
        tokens = float(given.tokens or pc.mean(column).as_py() or TOKENS_A_SAMPLE)  # type: ignore[attr-defined]
        assumed.say(f"{examples:,} examples of {tokens:,.0f} tokens: those of {dataset}")
    else:
        most = TOKENS_A_SAMPLE if known else recipe.generate.max_tokens / 2
        tokens = given.tokens or min(TOKENS_A_SAMPLE, most)
        if given.tokens is None:
            bound = "" if known else ", at most half of generate.max_tokens"
            assumed.say(f"{tokens:,.0f} tokens a trace (R1's mean{bound}): --tokens")
        examples = None
    if given.right is None:
        assumed.say(f"the teacher is right {RIGHT:.0%} of the time: --right")
    right = given.right or RIGHT
    samples, correct = samples_expected(right, recipe.generate.samples, recipe.generate.stop_after_correct)
    if known:
        samples = known[1] / problems
        correct = samples * right
    kept = correct if recipe.filter.require_correct else samples
    if recipe.filter.max_per_problem:
        kept = min(kept, recipe.filter.max_per_problem)
    if examples is None:
        examples = problems * kept * (1 - recipe.filter.validation_fraction)
    return Counts(problems, problems * samples, tokens, examples, tokens + PROMPT_TOKENS)


def imported_counts(run: Run, section: Traces, given: Given, assumed: Assumed) -> tuple[int, int]:
    """Problems and traces of [traces]: of what was imported, else what the set is known to have, a trace a problem."""
    path = run.folder / IMPORTED
    if path.is_file():
        about = read_json(path)
        assumed.say(f"{about['traces']:,} traces of {about['problems']:,} problems: those of {path}")
        return about["problems"], about["traces"]
    rows = given.problems or ROWS.get(section.path)
    if rows is None:
        rows = OTHER_PROBLEMS
        assumed.say(f"traces: {section.path} has {rows:,} problems, which nothing here knows yet: --problems")
    assumed.say("a trace a problem, until `r1distill generate` has read them")
    rows = min(rows, section.limit or rows)
    return rows, rows


def problem_count(section: Problems, key: str, assumed: Assumed, known: int | None = None) -> int:
    """Of a file, what it has; of a set on the Hub what it is known to have, by its benchmark's file or here."""
    path = local_path(section.path)
    if path is not None or is_procedural(section.path):
        tolerate = "unusable" if section.check else "expected"
        return len(read_problems(section.path, **options_of(section), tolerate=tolerate).problems)
    rows = known or ROWS.get(section.path)
    if rows is None:
        rows = OTHER_PROBLEMS
        option = ": --problems" if key == "problems" else ""
        assumed.say(f"{key}: {section.path} has {rows:,} problems, which nothing here knows{option}")
    return min(rows, section.limit or rows)


def eval_tokens(run: Run, assumed: Assumed) -> dict[str, tuple[int, float]]:
    """Of each task of the recipe for one model: (replies, tokens)."""
    settings = run.recipe.eval
    found = {}
    for name in settings.tasks:
        task = load_task(name)
        rows = problem_count(data_in(run.recipe, task), f"task {name}", assumed, task.questions)
        asking = asking_in(run.recipe, task)
        replies = min(rows, settings.limit or rows) * asking.samples
        longest = asking.max_tokens
        found[name] = (replies, replies * min(EVAL_TOKENS, longest / 2))
    if found:
        assumed.say(f"{EVAL_TOKENS:,} tokens a reply while evaluating, at most half of its max_tokens")
    return found
