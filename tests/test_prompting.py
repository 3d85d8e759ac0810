"""What a model is asked, and how a reply falls into thinking and answer."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.prompting import Prompt, load_prompt, split_thinking
from r1distill.records import Problem

WITHOUT_TAGS = st.text(max_size=50).filter(lambda text: "<" not in text)


@pytest.mark.parametrize(
    ("reply", "thinking", "answer"),
    [
        ("<think>\n1 + 1 = 2\n</think>\n\nIt is 2.", "1 + 1 = 2", "It is 2."),
        ("1 + 1 = 2\n</think>\n\nIt is 2.", "1 + 1 = 2", "It is 2."),  # R1: the template holds the opening tag
        ("<think>\n1 + 1", "1 + 1", ""),  # cut off
        ("<think>\n\n</think>\n\nIt is 2.", "", "It is 2."),
        ("It is 2.", None, "It is 2."),
        ("<think>a</think>b</think>c", "a</think>b", "c"),
        ("<think>a</think>b<think>c</think>d", "a</think>b<think>c", "d"),
        ("<think>a</think>", "a", ""),
        ("Well.<think>a</think>b", "a", "b"),
        ("", None, ""),
    ],
)
def test_a_reply_falls_into_thinking_and_answer(reply: str, thinking: str | None, answer: str) -> None:
    assert split_thinking(reply) == (thinking, answer)


@given(WITHOUT_TAGS, WITHOUT_TAGS)
def test_any_thinking_and_answer_are_found_again(thinking: str, answer: str) -> None:
    parts = (thinking.strip(), answer.strip())
    assert split_thinking(f"<think>\n{thinking}\n</think>\n\n{answer}") == parts
    assert split_thinking(f"{thinking}</think>{answer}") == parts
    assert split_thinking(f"<think>{thinking}") == (parts[0], "")
    assert split_thinking(answer) == (None, parts[1])


def test_braces_of_the_prompt_stay_as_they_are() -> None:
    prompt = load_prompt("prompts/math.txt", "<think>\n")
    message = prompt.user_message(Problem(r"What is $\frac{1}{2} + {x}$?", answer="1"))
    assert message.startswith("What is $\\frac{1}{2} + {x}$?\n\n")
    assert message.endswith(r"put your final answer within \boxed{}.")


@given(st.text(), st.lists(st.text(), min_size=1, max_size=26))
def test_what_a_question_says_is_put_in_untouched(text: str, choices: list[str]) -> None:
    tail = r"\1 {problem} {choices} {0} %s"
    problem = Problem(text + tail, "choice", "A", choices=[choice + tail for choice in choices])
    message = Prompt("p", "«{problem}» [{choices}]", "").user_message(problem)
    lines = [f"{letter}. {choice}{tail}" for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", choices, strict=False)]
    assert message == f"«{text}{tail}» [{chr(10).join(lines)}]"


def test_choices_are_never_left_out() -> None:
    problem = Problem("Which?", "choice", "B", choices=["x", "y"])
    assert "\n\nWhich?\n\nA. x\nB. y" in load_prompt("prompts/choice.txt", "").user_message(problem)
    with pytest.raises(UserError, match=r"prompts/math\.txt: has no \{choices\} in it.*use prompts/choice\.txt"):
        load_prompt("prompts/math.txt", "").user_message(problem)


def test_a_prompt_is_known_by_its_text_and_not_by_its_last_newline(tmp_path: Path) -> None:
    for name, text in (("a", "{problem}"), ("b", "{problem}\n")):
        (tmp_path / name).write_text(text)
    shas = {load_prompt(str(tmp_path / name), "").sha256 for name in ("a", "b")}
    assert shas == {hashlib.sha256(b"{problem}").hexdigest()}


def test_a_prompt_without_a_place_for_the_problem_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Solve it.")
    with pytest.raises(UserError, match=r"p\.txt: has no \{problem\} in it"):
        load_prompt(str(tmp_path / "p.txt"), "")


def test_code_to_complete_goes_where_the_prompt_has_a_place_for_it_and_else_below_the_question() -> None:
    starter = "class Solution:\n    def f(self):\n        "
    problem = Problem("Do {starter_code}.", kind="code", meta={"starter_code": starter})
    below = Prompt("p", "{problem}\nThink.", "").user_message(problem)
    assert below == "Do {starter_code}.\n\n```python\nclass Solution:\n    def f(self):\n```\nThink."
    both = Prompt("p", "{problem}", "", starter_text="Complete «{starter_code}» for {problem}")
    assert both.user_message(problem) == f"Complete «{starter}» for Do {{starter_code}}."
    assert both.user_message(Problem("Do it.", kind="code")) == "Do it."


def test_options_are_written_as_the_prompt_says() -> None:
    problem = Problem("Which?", kind="choice", answer="A", choices=["{letter}", "y"])
    message = Prompt("p", "{problem}\n{choices}", "", choice_line="{letter}: {choice}").user_message(problem)
    assert message == "Which?\nA: {letter}\nB: y"


def test_the_hash_of_a_plain_prompt_is_that_of_its_text_and_any_more_is_another() -> None:
    plain = Prompt("p", "{problem}", "<think>\n")
    assert plain.sha256 == hashlib.sha256(b"{problem}").hexdigest()
    more = [Prompt("p", "{problem}", "", starter_text="x"), Prompt("p", "{problem}", "", choice_line="{choice}")]
    assert len({plain.sha256, *(prompt.sha256 for prompt in more)}) == 3


def test_a_prompt_loses_its_last_line_end_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("{problem}\n```\n\n")
    assert load_prompt(str(tmp_path / "p.txt"), "").text == "{problem}\n```\n"
