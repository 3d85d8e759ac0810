"""The verdict on one reply, by the kind of its problem. Pure, but endless on hostile replies: workers run it."""

from collections.abc import Callable, Sequence

from r1distill.records import Problem
from r1distill.verify.choice import DEFAULT_CHOICES, LETTERS, extract_choice, letter_of
from r1distill.verify.extract import final_answers
from r1distill.verify.mathematics import check_math
from r1distill.verify.quick import NO_ANSWER, Fields


def check(problem: Problem, text: str) -> Fields:
    """(outcome, extracted, detail) of a reply to a problem.

    Raises MemoryError and RecursionError of answers too large to compare; takes for ever on a hostile one.
    """
    return CHECKS[problem.kind](problem, text)


def check_math_reply(problem: Problem, text: str) -> Fields:
    if not (problem.answer or "").strip():
        return "unverifiable", None, "the problem has no answer to compare with"
    return check_answers(problem.answer or "", final_answers(text))


def check_answers(gold: str, answers: Sequence[str]) -> Fields:
    """The verdict on the readings of a reply's answer: of the first that is right, else of the first."""
    if not answers:
        return "no_answer", None, NO_ANSWER
    first_detail = ""
    for answer in answers:
        is_correct, detail = check_math(gold, answer)
        if is_correct:
            return "correct", answer, detail
        first_detail = first_detail or detail
    return "incorrect", answers[0], first_detail


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


def check_open_reply(problem: Problem, text: str) -> Fields:
    return "unverifiable", None, "an open problem has no answer to compare with"


# code is judged by running it, which no worker does: r1distill/verify/code.py
CHECKS: dict[str, Callable[[Problem, str], Fields]] = {
    "math": check_math_reply,
    "choice": check_choice_reply,
    "open": check_open_reply,
}
