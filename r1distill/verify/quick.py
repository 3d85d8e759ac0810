"""What can be decided without a worker: a reply without an answer, the same text, two plain numbers.

Runs in the calling process, so that it is bounded whatever a reply contains: extraction takes time linear in the reply,
and only short answers are compared. Most answers of real models are decided here, at the price of some microseconds.
"""

from importlib.metadata import version

from r1distill.records import Outcome
from r1distill.verify.extract import final_answers
from r1distill.verify.plain import check_plain

RULES = 4  # raise it when a rule changes so that a verdict could differ
VERIFIER = f"math-verify {version('math-verify')} / r1distill {RULES}"
NO_ANSWER = "no box and no final expression outside the thinking"

MAX_CHARACTERS = 200  # of either answer; the substitutions of r1distill/verify/plain.py are not linear in longer ones
MAX_REPLY_CHARACTERS = 500_000  # a longer one goes to a worker as a whole

Fields = tuple[Outcome, str | None, str]  # outcome, extracted, detail


def quick_fields(gold: str | None, text: str) -> Fields | None:
    """(outcome, extracted, detail) of a reply to a mathematical problem, None where a worker has to decide."""
    if gold is None or not gold.strip() or len(gold) > MAX_CHARACTERS or len(text) > MAX_REPLY_CHARACTERS:
        return None
    answers = final_answers(text)
    if not answers:
        return "no_answer", None, NO_ANSWER
    extracted = answers[0]
    if len(extracted) > MAX_CHARACTERS:
        return None
    decided = check_plain(gold, extracted)
    if decided is None or (not decided[0] and len(answers) > 1):
        return None
    is_correct, detail = decided
    return ("correct" if is_correct else "incorrect"), extracted, detail
