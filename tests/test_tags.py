"""The tags of a trace: what is planted is found, what is clean is not flagged, and the columns are those of the contract."""

import dataclasses
import random
import string

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_traces import CHINESE_PROBLEMS, PASSAGES, clean, loops, malformed, mixed, worked_solutions

from r1distill.filter.measures.format import FORMATS, format_of
from r1distill.filter.measures.identity import self_identification
from r1distill.filter.measures.language import languages_of
from r1distill.filter.measures.personal import personal_data
from r1distill.filter.measures.program import program_of
from r1distill.filter.measures.prose import prose_of
from r1distill.filter.measures.refusal import is_refusal
from r1distill.filter.measures.tags import TAGS, TRACE_COLUMNS, trace_tags
from r1distill.prompting import split_thinking
from r1distill.records import Problem, Trace, Verdict

VERDICT = Verdict("", 0, "correct", "1")


def tags_of(text: str, problem: str = "What is 1 + 1?", **fields: object) -> dict[str, object]:
    thinking, answer = split_thinking(text)
    asked = Problem(problem, answer="2", source="test")
    trace = Trace(asked.id, 0, "m", "", 0, text, thinking, answer, "stop", n_tokens=7)
    return trace_tags(asked, dataclasses.replace(trace, **fields), VERDICT)  # type: ignore[arg-type]


# ---------------------------------------------------------------- planted; scripts/check_tags.py has the whole tables


def planted_tags(planted):
    return [(each, trace_tags(each.problem, each.trace, VERDICT)) for each in planted]


def test_loops_of_every_kind_are_found():
    draw = random.Random(1)
    rows = planted_tags(loops(draw, worked_solutions(None), 48))
    assert sum(tags["loop_words"] > 0 for _, tags in rows) >= 43
    periodic = [
        tags for planted, tags in rows if planted.kind.endswith("at the end") and "shuffled" not in planted.kind
    ]
    assert sum(tags["loop_at_end"] for tags in periodic) >= 0.9 * len(periodic)


def test_passages_in_another_language_are_found():
    rows = planted_tags(mixed(random.Random(2), worked_solutions(None), 50))
    assert sum(tags["language_mixed"] or tags["thinking_language"] != "en" for _, tags in rows) >= 46


def test_malformed_replies_get_their_word():
    for planted, tags in planted_tags(malformed(random.Random(3), worked_solutions(None), 30)):
        assert tags["format"] == planted.expected


def test_clean_traces_are_not_flagged():
    draw = random.Random(4)
    rows = planted_tags(clean(draw, worked_solutions(None)) for _ in range(150))
    assert {tags["format"] for _, tags in rows} == {"ok"}
    for name in ("language_mixed", "refusal", "self_identification", "pii"):
        assert not any(tags[name] for _, tags in rows), name
    assert all(tags["foreign_script_share"] == 0 for _, tags in rows)
    assert sum(tags["loop_words"] > 0 for _, tags in rows) <= 1


# ---------------------------------------------------------------- format


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("<think>a</think>b", "ok"),
        ("<think>\nif |a|<|b|>0 then x</s2>\n</think>\n\nb", "ok"),
        ("<think>a</think>b<|im_end|>", "special_token"),
        ("<think>a</think>b<|endoftext|>\n\nOnce upon", "text_after_end"),
        ("<think>a</think>b\n\nUser: thanks", "text_after_end"),
        ("<think>a</think>\n", "no_answer"),
        ("<Think>a</Think>b", "other_tags"),
        ("a", "no_thinking"),
        ("</think>a<think>b", "out_of_order"),
    ],
)
def test_the_form_of_a_reply_in_one_word(text, word):
    assert format_of(text) == word


@given(st.text(alphabet="<think>/ab \n|｜"))
def test_every_text_has_a_word(text):
    assert format_of(text) in FORMATS


# ---------------------------------------------------------------- language


@pytest.mark.parametrize("language", PASSAGES)
def test_each_language_is_known_and_its_own_problem_makes_it_no_mixture(language):
    passage = " ".join(PASSAGES[language]).replace("{a}", "3").replace("{b}", "4").replace("{c}", "5")
    found = languages_of(passage, f"{passage}\n$x = 3$\n{passage}", passage)
    assert found == (0.0, language, language, language, False)
    english = "So we have to add the two numbers, and then we look whether the sum is even or odd. "
    assert languages_of(english, english * 3 + passage, english).language_mixed


def test_a_quoted_problem_in_another_language_is_no_mixture():
    problem = CHINESE_PROBLEMS[0].format(a=3, b=4, c=5)
    english = "So the question asks how many apples are left, and we first add the two numbers and then subtract. "
    assert not languages_of(problem, f"{english * 3}The problem says: {problem} {english}", english).language_mixed
    assert languages_of(problem, f"{english * 3}{' '.join(PASSAGES['zh'] * 2)}{english}", english).language_mixed


def test_mathematics_is_no_foreign_script():
    thinking = r"Let α and β be the angles, Δ = β² - 4αγ, so $\text{Пусть}$ ℝ ∋ x, Σ and π, `привет` and ∠ABC in km."
    found = languages_of("Find the angle of the two lines in the figure.", thinking, "")
    assert (found.foreign_script_share, found.language_mixed) == (0.0, False)
    assert languages_of("Find the angle.", "So 因此 we have the answer", "").foreign_script_share == pytest.approx(
        2 / 15
    )


def test_money_is_no_formula_and_code_is_no_prose():
    assert prose_of("It costs $5 here and $10 there") == "It costs $5 here and $10 there"
    assert prose_of("So $x+y$ is\n```python\nfor x in y:\n    pass\n```\nhere").split() == ["So", "is", "here"]


# ---------------------------------------------------------------- content


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jane.doe@university.edu or call me: 212 555 0182", ["email", "phone"]),
        ("+44 20 7946 0958 is the number", ["phone"]),
        ("(212) 555-0182", ["phone"]),
        ("key = sk-" + string.ascii_letters[:40], ["key"]),
        ("the host 93.184.216.34", ["ip"]),
        ("She lives at 12 Baker Street, London NW1 6XE", ["address"]),
        ("500-200-1000 = -700 and +12 345 678 + 9 = 2, section 1.2.3.4, 192.168.0.1, a@b", []),
        ("The phone costs 250 - 100 - 300 dollars; call f(100) 200-3000 = 7", []),
        ("There are 12 houses in Baker Street, 555 people, 555-1234567 = -1234012", []),
        ("user@example.com", []),
    ],
)
def test_personal_data_is_told_from_mathematics(text, kinds):
    assert personal_data(text) == kinds
    assert personal_data(text, problem=text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I am DeepSeek-R1, made to help.", "DeepSeek-R1"),
        ("I'm Qwen, created by Alibaba Cloud.", "Qwen"),
        ("I was trained by OpenAI.", "OpenAI"),
        ("我是通义千问", "通义千问"),
        ("As an AI language model, I think", "AI"),
        ("My name is Zephyr, an AI assistant.", "Zephyr"),
        ("I am sure that AI is the angle", ""),
        ("I am Claude and I have 3 apples. AI", ""),
        ("As a result, the AIME answer is 5; I was made by hand", ""),
    ],
)
def test_who_the_model_says_it_is(text, name):
    assert self_identification(text) == name
    assert self_identification(text, problem=text) == ""


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot provide instructions for this.", True),
        ("抱歉，我无法回答这个问题。", True),
        ("I cannot find an integer x, so there is none. I am sorry for the long proof.", False),
        ("We can't help but notice that 3 divides 12.", False),
    ],
)
def test_refusals_are_told_from_impossibility(answer, refuses):
    assert is_refusal(answer) == refuses


def test_code_and_its_fences():
    code = "def f(x):\n    return x\nprint(f(2))"
    assert program_of(f"```python\n{code}\n```", f"```python\n{code}\n```") == (True, True)
    assert program_of(code, code) == (True, False)
    assert program_of(f"```python\n{code}", f"```python\n{code}") == (True, False)
    assert program_of("If x is odd:\nthen it is prime", "") == (False, False)
    assert program_of("```\n5 3\n1 2\n```", "") == (False, False)


# ---------------------------------------------------------------- the columns


def test_the_tags_are_the_columns_and_the_rest_is_not_measured():
    tags = tags_of(
        "<think>\nOne and one is two.\n</think>\n\n2",
        mean_entropy_nats=0.5,
        mean_logprob=float("nan"),
        thinking_signals={"mean_entropy_nats": 0.6, "mean_logprob": None},
    )
    assert list(tags) == list(TRACE_COLUMNS)
    [row] = pa.Table.from_pylist([tags], TAGS).to_pylist()
    assert (row["mean_entropy_nats"], row["thinking_mean_entropy_nats"], row["mean_logprob"]) == (0.5, 0.6, None)
    assert (row["n_thinking_characters"], row["n_answer_characters"], row["format"]) == (19, 1, "ok")
    assert row["quality"] is None
    assert all(field.metadata[b"description"] for field in TAGS)


def test_a_request_that_failed_has_no_measures_of_text():
    tags = tags_of("", finish_reason="error")
    assert (tags["format"], tags["longest_repeat"], tags["language_mixed"], tags["pii"]) == ("empty", None, None, None)
    pa.Table.from_pylist([tags], TAGS)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300), st.text(max_size=50))
def test_no_text_is_too_strange(text, problem):
    tags = tags_of(text, problem or "?")
    pa.Table.from_pylist([tags], TAGS)


@pytest.mark.parametrize(
    "text",
    ["$" * 30_000, "\\(" * 20_000, "```\n" * 20_000, "I am " * 20_000 + "AI", "1" * 30_000, "call " * 10_000,
     "<" * 30_000, "a@" * 20_000, "import " * 10_000, "a." * 20_000 + "@", "+1 " * 20_000, "1.1.1." * 10_000],
)  # fmt: skip
def test_no_text_takes_longer_than_linear_time(text):
    tags_of(f"<think>{text}</think>{text}")
