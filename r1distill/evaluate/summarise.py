"""summary.json of a model on a task: every score with its uncertainty, and beside it what it may be explained by."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from r1distill.errors import UserError
from r1distill.evaluate.metrics import pass_at_k, score_of
from r1distill.evaluate.rating import codeforces_rating
from r1distill.evaluate.results import Result, read_results
from r1distill.evaluate.votes import Ballot, ballot_of, consensus_at_k
from r1distill.records import Problem, Verdict
from r1distill.store import read_records
from r1distill.verify.agreement import panels
from r1distill.verify.pool import VerifierPool

MOST_GROUPS = 30  # values of a column of `Problem.meta` that make groups


def summarise(folder: Path, about: Mapping[str, Any], pool: VerifierPool | None) -> dict[str, Any]:
    """The summary of eval/TASK/MODEL from its problems.parquet, traces/ and verdicts.parquet, texts left out.

    `about` is what the records do not know (task, model, protocol, sampling, conditions, seconds …) and is put in as it
    is. Shares are of all samples; `tokens` are sampled ones. cons@k needs `pool` to compare answers, and is None without
    one and where a problem is neither mathematical nor multiple choice. Raises UserError where the files are not whole.
    """
    problems = {problem.id: problem for problem in read_records(folder / "problems.parquet", Problem)}
    right: dict[str, int] = defaultdict(int)
    samples: dict[str, int] = defaultdict(int)
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    tokens: list[int] = []
    is_right: list[bool] = []
    looped = 0
    for result in read_results(folder):
        ending = result.ending
        right[ending.problem_id] += result.right
        samples[ending.problem_id] += 1
        outcomes[result.verdict.outcome] += 1
        reasons[ending.finish_reason] += 1
        tokens.append(ending.n_tokens)
        is_right.append(result.right)
        looped += ending.looped
    if not tokens:
        raise UserError(f"{folder}: no traces to score; run `r1distill eval` again")
    asked = [problem_of(problems, name, folder) for name in samples]
    rights, numbers = [right[problem.id] for problem in asked], [samples[problem.id] for problem in asked]
    score = score_of(rights, numbers)
    n = len(tokens)
    return {
        **about,
        "n_problems": len(asked),
        "samples": max(numbers),
        "pass@1": score.pass_at_1,
        "ci95": list(score.ci95),
        "ci95_samples": list(score.ci95_samples),
        "se_questions": score.se_questions,
        "se_samples": score.se_samples,
        "pass@k": by_name(pass_at_k(rights, numbers)),
        "cons@k": consensus(folder, asked, pool),
        "truncated": reasons["length"] / n,
        "no_answer": outcomes["no_answer"] / n,
        "verifier_timeout": outcomes["timeout"] / n,
        "failed": reasons["error"] / n,
        "repetition": looped / n,
        "outcomes": dict(outcomes),
        **token_counts(np.array(tokens), np.array(is_right)),
        "groups": groups(asked, rights, numbers),
        **rating(asked, rights, numbers),
    }


def problem_of(problems: Mapping[str, Problem], name: str, folder: Path) -> Problem:
    if name not in problems:
        raise UserError(f"{folder}: a trace of problem {name}, which problems.parquet does not hold; evaluate again")
    return problems[name]


def by_name(scores: Mapping[int, float]) -> dict[str, float]:
    """JSON has no numbers for keys."""
    return {str(k): value for k, value in scores.items()}


def token_counts(tokens: np.ndarray, right: np.ndarray) -> dict[str, int | float | None]:
    """`tokens (S,)` of each sample, and whether it is `right (S,)`."""
    return {
        "tokens": int(tokens.sum()),
        "mean_tokens": float(tokens.mean()),
        "median_tokens": float(np.median(tokens)),
        "p95_tokens": float(np.percentile(tokens, 95)),
        "mean_tokens_correct": float(tokens[right].mean()) if right.any() else None,
        "mean_tokens_wrong": float(tokens[~right].mean()) if not right.all() else None,
    }


# ---------------------------------------------------------------- votes


def consensus(folder: Path, asked: Sequence[Problem], pool: VerifierPool | None) -> dict[str, float] | None:
    if pool is None or not all(problem.kind in ("math", "choice") for problem in asked):
        return None
    problems = {problem.id: problem for problem in asked}
    found = list(ballots(read_results(folder), problems, pool))
    if len(found) != len(asked):
        raise UserError(
            f"{folder}: the samples of a problem do not stand together in traces/; run `r1distill eval` again"
        )
    return by_name(consensus_at_k(found))


def ballots(results: Iterator[Result], problems: Mapping[str, Problem], pool: VerifierPool) -> Iterator[Ballot]:
    """One for each problem, in order. A reply that did not end by itself has not said its last word: it does not vote."""

    def heard(result: Result) -> Verdict:
        return result.verdict if result.ending.finish_reason == "stop" else replace(result.verdict, extracted=None)

    for panel in panels(map(heard, results), problems, pool):
        yield ballot_of(panel.classes, [verdict.outcome == "correct" for verdict in panel.verdicts])


# ---------------------------------------------------------------- groups


def groups(asked: Sequence[Problem], right: Sequence[int], samples: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Scores by each column of `Problem.meta` that has 2 to 30 values, each for two problems in the mean.

    Problems without a value are in no group of that column.
    """
    members: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, problem in enumerate(asked):
        for column, value in problem.meta.items():
            if isinstance(value, str | int | float) and value != "":
                members[column][value].append(place)
    found = {}
    for column in sorted(members):
        values = members[column]
        if 2 <= len(values) <= min(MOST_GROUPS, sum(map(len, values.values())) // 2):
            found[column] = {
                str(value): group_score([right[place] for place in values[value]], [samples[i] for i in values[value]])
                for value in sorted(values, key=in_order)
            }
    return found


def in_order(value: str | int | float) -> tuple[bool, float, str]:
    """Numbers by their size, before texts."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def group_score(right: Sequence[int], samples: Sequence[int]) -> dict[str, Any]:
    score = score_of(right, samples)
    return {"n_problems": len(right), "pass@1": score.pass_at_1, "ci95": list(score.ci95)}


def rating(asked: Sequence[Problem], right: Sequence[int], samples: Sequence[int]) -> dict[str, Any]:
    """`codeforces_rating` where every problem is a program with a rating."""
    ratings = [problem.meta.get("rating") if problem.kind == "code" else None for problem in asked]
    known = [float(value) for value in ratings if isinstance(value, int | float)]
    if len(known) < len(asked):
        return {}
    found = codeforces_rating(known, [c / n for c, n in zip(right, samples, strict=True)])
    return {
        "codeforces_rating": {"rating": found.rating, "ci95": list(found.ci95), "n_problems": found.n_problems},
    }
