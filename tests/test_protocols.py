"""Protocols: what they say is what is asked, their hash is of that alone, and options are shuffled the same everywhere."""

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import ROOT

from r1distill.errors import UserError
from r1distill.evaluate.protocols import (
    Asking,
    Protocol,
    asked,
    asking_of,
    load_protocol,
    protocol_sha256,
    resolve,
    shuffled,
)
from r1distill.evaluate.tasks import Task, load_task
from r1distill.prompting import LETTERS
from r1distill.records import Problem
from r1distill.resources import shipped_names

NAMES = shipped_names("eval/protocols", ".toml")
# A protocol that is in use is not changed: who changes one raises its version, and adds a line here.
HASHES = {
    ("deepseek-r1", 1): "9280f2e85797",
    ("greedy", 1): "d431feaabef4",
    ("open-r1", 1): "b7de035e4ed1",
    ("sober", 1): "4b0a7463093a",
}


def protocol_file(folder: Path, text: str, name: str = "mine.toml") -> Protocol:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_protocol(str(path))


def task_of(**more: Any) -> Task:
    tables = {"name": "t", "title": "T", "license": "", "samples": 5, "data": {"path": "x"}, **more}
    return Task.model_validate(tables)


GENERAL = 'name = "p"\nversion = 1\ntitle = ""\nsource = ""\ntemperature = 0.5\ntop_p = 0.9\nmax_tokens = 100\n'


def test_deepseeks_protocol_is_as_published() -> None:
    """github.com/deepseek-ai/DeepSeek-R1 at 0cf7856: 32,768 tokens, 0.6, 0.95, no system prompt, <think>, the sentence."""
    asking = asking_of(load_task("aime24"), "deepseek-r1")
    assert (asking.temperature, asking.top_p, asking.top_k, asking.max_tokens) == (0.6, 0.95, 0, 32768)
    assert (asking.prompt.system, asking.prompt.template, asking.prompt.prefill) == ("", "chat", "<think>\n")
    message = asking.prompt.user_message(Problem("What is 1 + 1?", answer="2"))
    assert message == "What is 1 + 1?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    samples = {
        name: asking_of(load_task(name)).samples for name in ("aime24", "math500", "gpqa_diamond", "livecodebench")
    }
    assert samples == {"aime24": 64, "math500": 4, "gpqa_diamond": 8, "livecodebench": 16}


def test_open_r1_and_sober_ask_as_lighteval_does() -> None:
    """lighteval at d3da6b9, default_prompts.py; data.json and run.sh of bethgelab/sober-reasoning at 8fceffd."""
    for name in ("open-r1", "sober"):
        message = asking_of(load_task("math500"), name).prompt.user_message(Problem("What is {x}?", answer="2"))
        assert message == (
            "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
            "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
            "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
            "answering.\n\nWhat is {x}?"
        )
    sober = asking_of(load_task("aime25"), "sober")
    assert (sober.temperature, sober.top_p, sober.samples) == (0.8, 0.9, 10)
    assert asking_of(load_task("olympiadbench"), "sober").samples == 3


def test_a_question_of_gpqa_is_asked_as_simple_evals_does() -> None:
    problem = Problem("Which?", kind="choice", choices=["x", "y", "z", "{letter}"], answer="B")
    assert asking_of(load_task("gpqa_diamond")).prompt.user_message(problem) == (
        "Answer the following multiple choice question. The last line of your response should be of the following "
        "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
        "Which?\n\nA) x\nB) y\nC) z\nD) {letter}"
    )


def test_livecodebench_shows_its_starter_code_and_otherwise_asks_for_a_program() -> None:
    prompt = asking_of(load_task("livecodebench")).prompt
    head = (
        "You will be given a question (problem specification) and will generate a correct Python program that matches the "
        "specification and passes all tests.\n\nQuestion: Add {them}.\n\n"
    )
    program = prompt.user_message(Problem("Add {them}.", kind="code"))
    assert program.startswith(head + "Read the inputs from stdin solve the problem")
    assert program.endswith("```python\n# YOUR CODE HERE\n```\n\n")
    function = prompt.user_message(Problem("Add {them}.", kind="code", meta={"starter_code": "def add(): {problem}"}))
    assert function == head + (
        "You will use the following starter code to write the solution to the problem and enclose your code within "
        "delimiters.\n```python\ndef add(): {problem}\n```\n\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_protocol_has_another_version(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.source
    assert HASHES[name, protocol.version] == protocol_sha256(protocol)[:12]


def test_what_a_protocol_says_of_a_task_goes_first_then_the_tasks_own_then_the_rule(tmp_path: Path) -> None:
    for name in ("general", "own", "named"):
        (tmp_path / f"{name}.txt").write_text(f"{name}: {{problem}}\n")
    general = GENERAL + f'[prompts]\nmath = "{tmp_path}/general.txt"\n'
    protocol = protocol_file(tmp_path, general)
    own = {"prompt": f"{tmp_path}/own.txt", "max_tokens": 7, "temperature": 0.0}

    def of(protocol: Protocol, **task: Any) -> tuple[str, float, int, int]:
        asking = resolve(protocol, task_of(**task))
        return asking.prompt.text, asking.temperature, asking.max_tokens, asking.samples

    assert of(protocol) == ("general: {problem}", 0.5, 100, 5)
    assert of(protocol, **own) == ("own: {problem}", 0.0, 7, 5)
    named = protocol_file(tmp_path, general + f'[tasks.t]\nsamples = 9\nprompt = "{tmp_path}/named.txt"\n')
    assert of(named, **own) == ("named: {problem}", 0.0, 7, 9)
    assert of(named, **own, name="other") == ("own: {problem}", 0.0, 7, 5)
    assert of(protocol_file(tmp_path, "samples = 3\n" + general)) == ("general: {problem}", 0.5, 100, 3)


def test_what_the_recipe_changes_is_named_and_is_another_identity() -> None:
    task = load_task("aime24")
    plain = asking_of(task)
    assert plain.summary() == {"name": "deepseek-r1", "version": 1, "sha256": plain.sha256}
    same = asking_of(task, temperature=0.6, top_p=None, prefill="<think>\n", max_tokens=32768)
    assert same == plain
    changed = asking_of(task, temperature=1.0, prefill="")
    assert changed.summary()["changed"] == ["temperature", "prefill"]
    assert changed.prompt.prefill == ""
    assert changed.sha256 != plain.sha256
    fewer = asking_of(task, samples=4)
    assert fewer.samples == 4
    assert fewer.sha256 == plain.sha256  # the same question, asked less often
    assert not fewer.changed


def test_the_hash_is_of_everything_that_decides_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Ask {problem}\n")
    text = GENERAL + f'[prompts]\nmath = "{tmp_path}/p.txt"\n'
    task = task_of()
    before = resolve(protocol_file(tmp_path, text), task)
    head, _, prompts = text.partition("[prompts]\n")
    turned = "".join(reversed(head.splitlines(keepends=True))) + "[prompts]\n" + prompts
    assert resolve(protocol_file(tmp_path, turned), task).sha256 == before.sha256
    renamed = text.replace('"p"', '"q"').replace("version = 1", "version = 2").replace("0.5", "0.50")
    assert resolve(protocol_file(tmp_path, renamed), task).sha256 == before.sha256
    (tmp_path / "p.txt").write_text("Ask: {problem}\n")
    assert resolve(protocol_file(tmp_path, text), task).sha256 != before.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.61}, {"top_p": 0.94}, {"top_k": 20},
        {"max_tokens": 32769}, {"choices_seed": 1}, {"choices_seed": None},
    ],
)  # fmt: skip
def test_any_change_of_how_is_another_identity(change: dict[str, Any]) -> None:
    before = asking_of(load_task("gpqa_diamond"))
    assert dataclasses.replace(before, **change).sha256 != before.sha256


@pytest.mark.parametrize("field", ["text", "prefill", "starter_text", "choice_line", "system", "template"])
def test_any_change_of_the_prompt_is_another_identity(field: str) -> None:
    before = asking_of(load_task("gpqa_diamond"))
    prompt = dataclasses.replace(before.prompt, **{field: "other"})
    assert dataclasses.replace(before, prompt=prompt).sha256 != before.sha256


def test_how_options_are_ordered_is_nothing_to_a_task_without_any() -> None:
    assert asking_of(load_task("aime24")).choices_seed is None
    assert asking_of(load_task("mmlu_pro")).choices_seed == 0
    named: list[str] = [field.name for field in dataclasses.fields(Asking)]
    assert {"protocol", "version", "task", "samples", "changed"} == set(named) - set(
        asking_of(load_task("aime24")).decisive
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GENERAL.replace("top_p", "topp"), "unknown key topp; did you mean top_p"),
        (GENERAL.replace("0.5", "-1.0"), "temperature = -1.0"),
        (GENERAL + 'template = "completion"\n', "template = 'completion'"),
        (GENERAL + "[tasks.aime24]\nsample = 3\n", "unknown key tasks.aime24.sample"),
        ("name =", "not valid TOML"),
    ],
)
def test_a_wrong_protocol_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        protocol_file(tmp_path, text)
    assert words in str(refused.value)
    assert str(tmp_path / "mine.toml") in str(refused.value)


def test_a_protocol_that_is_not_there_and_a_prompt_that_asks_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"eval\.protocol: no such protocol: r1; .*deepseek-r1, greedy, open-r1, sober"):
        load_protocol("r1")
    (tmp_path / "p.txt").write_text("Answer.\n")
    with pytest.raises(UserError, match=r"has no \{problem\} in it"):
        resolve(load_protocol("deepseek-r1"), task_of(prompt=f"{tmp_path}/p.txt"))


# ------------------------------------------------------------ the order of the options


@given(st.text(max_size=10), st.integers(2, 10), st.integers(0, 5), st.data())
def test_the_right_option_keeps_its_letter(text: str, number: int, seed: int, data: st.DataObject) -> None:
    choices = [f"option {index}" for index in range(number)]
    right = data.draw(st.integers(0, number - 1))
    problem = Problem(text, kind="choice", choices=choices, answer=LETTERS[right])
    turned = shuffled(problem, seed)
    assert sorted(turned.choices or []) == choices
    assert (turned.choices or [])[LETTERS.index(turned.answer or "")] == choices[right]
    assert turned.id == problem.id
    assert shuffled(problem, seed) == turned


def test_every_letter_is_right_as_often_and_a_seed_is_another_order() -> None:
    problems = [Problem(f"Which of {n}?", kind="choice", choices=list("wxyz"), answer="A") for n in range(800)]
    first, second = ([shuffled(problem, seed) for problem in problems] for seed in (0, 1))
    counts = Counter(problem.answer for problem in first)
    assert set(counts) == set("ABCD")
    assert max(abs(count - 200) for count in counts.values()) < 60, counts  # the deviation is 12
    assert sum(a.choices != b.choices for a, b in zip(first, second, strict=True)) > 700  # 1 in 24 stays by chance


def test_another_process_shuffles_the_same() -> None:
    code = (
        "from r1distill.records import Problem as P; from r1distill.evaluate.protocols import shuffled as s;"
        "print(*[''.join(s(P(str(n), kind='choice', choices=list('abcdefghij'), answer='C'), 3).choices) for n in range(9)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = [shuffled(Problem(str(n), kind="choice", choices=list("abcdefghij"), answer="C"), 3) for n in range(9)]
    assert said == {" ".join("".join(problem.choices or []) for problem in here) + "\n"}


def test_only_choices_are_shuffled_and_only_where_the_protocol_says_so() -> None:
    problems = [Problem("1 + 1?", answer="2"), Problem("Which?", kind="choice", choices=list("abcdef"), answer="A")]
    asking = asking_of(load_task("mmlu_pro"))
    as_set = dataclasses.replace(asking, choices_seed=None)
    assert asked(problems, as_set) == problems
    assert asked(problems, asking)[0] == problems[0]
    assert asked(problems, asking)[1].choices != problems[1].choices
