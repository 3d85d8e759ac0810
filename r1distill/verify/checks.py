"""The verdict on one reply, by the kind of its problem. Pure, but endless on hostile replies: workers run it."""

from collections.abc import Callable
from importlib.metadata import version

from r1distill.records import Outcome, Problem
from r1distill.verify.choice import DEFAULT_CHOICES, LETTERS, extract_choice, letter_of
from r1distill.verify.extract import final_answer
from r1distill.verify.mathematics import check_math

RULES = 1  # raise it when a rule changes so that a verdict could differ
VERIFIER = f"math-verify {version('math-verify')} / r1distill {RULES}"

Fields = tuple[Outcome, str | None, str]


def check(problem: Problem, text: str) -> Fields:
    """(outcome, extracted, detail) of a reply to a problem.

    Raises MemoryError and RecursionError of answers too large to compare; takes for ever on a hostile one.
    """
    return CHECKS[problem.kind](problem, text)


def check_math_reply(problem: Problem, text: str) -> Fields:
    if not (problem.answer or "").strip():
        return "unverifiable", None, "the problem has no answer to compare with"
    extracted = final_answer(text)
    if extracted is None:
        return "no_answer", None, "no box and no final expression outside the thinking"
    is_correct, detail = check_math(problem.answer or "", extracted)
    return "correct" if is_correct else "incorrect", extracted, detail


def check_choice_reply(problem: Problem, text: str) -> Fields:
    choices = problem.choices or []
    n_choices = min(len(choices) or DEFAULT_CHOICES, len(LETTERS))
    gold = letter_of(problem.answer or "", LETTERS[:n_choices], choices)
    if gold is None:
        return "unverifiable", None, f"the answer {problem.answer!r} is none of the letters {LETTERS[:n_choices]}"
    extracted = extract_choice(text, n_choices, choices)
    if extracted is None:
        return "no_answer", None, "no single letter is chosen outside the thinking"
    return "correct" if extracted == gold else "incorrect", extracted, "letters"


def check_code_reply(problem: Problem, text: str) -> Fields:
    return "unverifiable", None, "the code sandbox is not part of this version, and without it no program is run"


def check_open_reply(problem: Problem, text: str) -> Fields:
    return "unverifiable", None, "an open problem has no answer to compare with"


CHECKS: dict[str, Callable[[Problem, str], Fields]] = {
    "math": check_math_reply,
    "choice": check_choice_reply,
    "code": check_code_reply,
    "open": check_open_reply,
}
