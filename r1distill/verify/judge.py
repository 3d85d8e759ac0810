"""The optional judge: an LLM behind any OpenAI-compatible URL, asked where the rules are at a loss. Never the default.

It compares a final answer with the reference answer (prompts/judge.txt); it does not solve the problem, and it never
sees programs. Asking it is sampling a model: the same sampler and journal as for traces, in the folder judge/ beside the
verdicts, so that a reply is on disk before it counts and is never asked for again while the question, the prompt, the
model and its settings stay the same.

Every verdict it was asked about names it (`Verdict.verifier`) and keeps what the rules said (`Verdict.detail`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.generate.backend import Sampling
from r1distill.generate.journal import Journal
from r1distill.generate.plan import Plan
from r1distill.generate.server import ServerBackend
from r1distill.generate.stage import Job, progress_of, sample_jobs
from r1distill.prompting import LETTERS, Prompt
from r1distill.records import Outcome, Problem, Trace, Verdict, content_id
from r1distill.resources import read_file
from r1distill.run import Clock
from r1distill.sections import Judge, Verify
from r1distill.store import read_records, write_records
from r1distill.verify.agreement import panels
from r1distill.verify.settings import open_pool

MAX_SHOWN_CHARACTERS = 2_000  # of a reply, from its end: the judge decides on an answer, not on an essay
PLACES = ("{problem}", "{reference}", "{answer}", "{boundary}")
NAME = "judge "  # how the verifier of its verdicts begins
DETAIL = re.compile(r"judge: \w+; rules: (\w+)")
VERDICT_LINE = re.compile(r"[\s*_`#>]*VERDICT (\w+):[\s*_`]*(EQUAL|DIFFERENT|NONE)[\s*_`.]*")
BOUNDARY_DIGITS = 8
OUTCOMES: dict[str, Outcome] = {"EQUAL": "correct", "DIFFERENT": "incorrect", "NONE": "no_answer"}


@dataclass(slots=True)
class Questions:
    """What the judge is asked: traces with the same problem and the same answer share a question."""

    by_id: dict[str, Problem] = field(default_factory=dict)
    of_trace: dict[tuple[str, int], str] = field(default_factory=dict)  # (problem id, sample) → id of the question
    nothing_to_compare: int = 0  # traces without a reference, or that say nothing outside their thinking


def judge_verdicts(
    traces: Path, verdicts: Path, problems: dict[str, Problem], verify: Verify, judge: Judge, clock: Clock, label: str
) -> tuple[Counter[str], dict[str, int]]:
    """Ask the judge about what the rules left in the file `verdicts`, and put its own verdicts in their place.

    Returns the outcomes, and counts: the traces it was asked about ("asked"), the different questions ("questions"), how
    many of those were answered before this attempt ("cached"), the traces whose outcome it changed ("changed"), those
    where its reply could not be read ("unreadable") or the server refused the request ("refused"), so that the verdict
    of the rules stays, those not asked about ("nothing_to_compare"), and the tokens of its replies.

    Raises UserError where no server answers or every request is refused. What was answered is kept.
    """
    prompt = load_judge_prompt(judge.prompt)
    questions = questions_about(
        traces, verdicts, problems, prompt, judge, against_others(verdicts, problems, verify, judge)
    )
    counts = dict.fromkeys(
        ("asked", "questions", "cached", "changed", "unreadable", "refused", "nothing_to_compare"), 0
    )
    counts |= {"asked": len(questions.of_trace), "questions": len(questions.by_id), "tokens": 0}
    counts["nothing_to_compare"] = questions.nothing_to_compare
    replies: dict[str, Trace] = {}
    if questions.by_id:
        job = job_of(judge, verdicts.with_name("judge"), list(questions.by_id.values()), label)
        counts |= ask(job, judge, verify, clock)
        replies = {reply.problem_id: reply for reply in read_records(job.traces, Trace)}
    verifier = f"{NAME}{judge.model} / prompt {prompt.sha256[:12]}"
    outcomes: Counter[str] = Counter()

    def judged() -> Iterator[Verdict]:
        for verdict in read_records(verdicts, Verdict):
            question = questions.by_id.get(questions.of_trace.get((verdict.problem_id, verdict.sample), ""))
            final = with_reply(verdict, replies[question.id], question, verifier, counts) if question else verdict
            outcomes[final.outcome] += 1
            yield final

    write_records(verdicts, Verdict, judged())
    say(f"  {label}: " + ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in counts.items()))
    return outcomes, counts


def load_judge_prompt(name: str) -> Prompt:
    """The judge's prompt. Raises UserError where it lacks a place for what has to be compared."""
    text = read_file(name, "verify.judge.prompt").rstrip("\n")
    if missing := [place for place in PLACES if place not in text]:
        raise UserError(f"verify.judge.prompt {name}: has no {', '.join(missing)} in it; start from prompts/judge.txt")
    return Prompt(name, text, prefill="")


def against_others(verdicts: Path, problems: dict[str, Problem], verify: Verify, judge: Judge) -> Set[tuple[str, int]]:
    """(problem id, sample) of the verdicts that stand against the other samples, where the judge is asked about them."""
    if "disagreement" not in judge.ask:
        return set()
    with open_pool(verify) as pool:
        return {
            (verdict.problem_id, verdict.sample)
            for panel in panels(read_records(verdicts, Verdict), problems, pool)
            for verdict, is_against in zip(panel.verdicts, panel.against, strict=True)
            if is_against
        }


def questions_about(
    traces: Path,
    verdicts: Path,
    problems: dict[str, Problem],
    prompt: Prompt,
    judge: Judge,
    against: Set[tuple[str, int]],
) -> Questions:
    """The questions about the traces whose outcome is in `judge.ask` or that are among `against`.

    A failed sample has no reply, and whether a program is right is not for a judge to say: neither is asked about.
    """
    questions = Questions()
    for trace, verdict in zip(read_records(traces, Trace), read_records(verdicts, Verdict), strict=True):
        key, problem = (trace.problem_id, trace.sample), problems[trace.problem_id]
        wanted = verdict.outcome in judge.ask or key in against
        if not wanted or problem.kind == "code" or trace.finish_reason == "error":
            continue
        shown = shown_answer(trace, verdict)
        if not shown or not (problem.answer or "").strip():
            questions.nothing_to_compare += 1
            continue
        question = question_of(prompt, problem, shown)
        questions.by_id[question.id] = question
        questions.of_trace[key] = question.id
    return questions


def shown_answer(trace: Trace, verdict: Verdict) -> str:
    """What the judge sees of a reply: the extracted answer, or the end of what follows the thinking where there is none."""
    if verdict.extracted is not None:
        return verdict.extracted
    answer = trace.answer.strip()
    return answer if len(answer) <= MAX_SHOWN_CHARACTERS else f"…{answer[-MAX_SHOWN_CHARACTERS:]}"


def question_of(prompt: Prompt, problem: Problem, shown: str) -> Problem:
    """The prompt with everything put in, in one pass: braces in a reply stay as they are.

    The boundary is a hash of all that it encloses. No reply can know it: none can pretend to end, and a judge that
    repeats a verdict written in one has not given its own.
    """
    choices = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem.choices or [], strict=False)]
    reference = problem.answer or ""
    values = {
        "{problem}": "\n".join([problem.problem, *choices]),
        "{reference}": reference,
        "{answer}": shown,
        "{boundary}": content_id(problem.problem, choices, reference, shown)[:BOUNDARY_DIGITS],
    }
    text = re.sub("|".join(map(re.escape, PLACES)), lambda place: values[place[0]], prompt.text)
    return Problem(text, kind="open", meta={"boundary": values["{boundary}"]})


def job_of(judge: Judge, folder: Path, questions: list[Problem], label: str) -> Job:
    plan = Plan(
        model=judge.model,
        version="",
        prompt=Prompt("", "{problem}", prefill=""),  # a question is the whole message
        sampling=Sampling(judge.temperature, top_p=1.0, top_k=0, max_tokens=judge.max_tokens, logprobs=0),
        seed=0,
        samples=1,
        stop_after_correct=0,
    )
    return Job(label, plan, questions, folder / "journal", folder / "traces" / "00000.parquet")


def ask(job: Job, judge: Judge, verify: Verify, clock: Clock) -> dict[str, int]:
    """Get the replies that are missing, and write all of them as traces. Returns {"cached", "tokens"}."""
    write_records(job.traces.parents[1] / "problems.parquet", Problem, job.problems)
    with Journal(job.journal) as journal:
        cached = progress_of(job, journal)[1]
    backend = ServerBackend(
        judge.model, judge.urls, api_key_env=judge.api_key_env, timeout_s=judge.timeout_s, retries=judge.retries,
        section="verify.judge",
    )  # fmt: skip
    [counts] = sample_jobs([job], backend, verify, clock, judge.concurrency)
    if counts["failed"] == counts["samples"]:
        raise UserError(
            f"the judge refused every request, the last with: {counts['last_error']}; correct [verify.judge], "
            "or leave it out, and run again"
        )
    return {"cached": cached, "tokens": counts["tokens"]}


def with_reply(verdict: Verdict, reply: Trace, question: Problem, verifier: str, counts: dict[str, int]) -> Verdict:
    """The verdict after the judge's reply, marked as the judge's; that of the rules where the reply says nothing."""
    if reply.finish_reason == "error":
        counts["refused"] += 1
        return verdict
    outcome = outcome_of(reply, question.meta["boundary"])
    if outcome is None:
        counts["unreadable"] += 1
        return verdict
    counts["changed"] += outcome != verdict.outcome
    return replace(
        verdict,
        outcome=outcome,
        detail=f"judge: {outcome}; rules: {verdict.outcome} ({verdict.detail})",
        verifier=f"{verifier} / {verdict.verifier}",
    )


def outcome_of(reply: Trace, boundary: str) -> Outcome | None:
    """What the last line of a judge's reply says, outside its thinking; None where that is no verdict, or was cut off."""
    lines = reply.answer.split("\n")  # stripped, so that the last one is not empty
    match = VERDICT_LINE.fullmatch(lines[-1])
    return OUTCOMES[match[2]] if match and match[1] == boundary and reply.finish_reason == "stop" else None


def rules_outcome(verdict: Verdict) -> Outcome | None:
    """What the rules said before the judge was asked; None for a verdict that is theirs."""
    match = DETAIL.match(verdict.detail) if verdict.verifier.startswith(NAME) else None
    return match[1] if match else None  # type: ignore[return-value]
