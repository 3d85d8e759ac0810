"""Procedural problems are the same in every process, and only those are offered whose answers the rules can judge."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_run import ROOT, assert_one_error_line, r1distill, recipe_file

from r1distill.errors import UserError
from r1distill.pipeline import problems_sha256
from r1distill.problems import load_problems, local_path
from r1distill.procedural import TASKS
from r1distill.verify.mathematics import check_math

pytest.importorskip("reasoning_gym")
IDS = "from r1distill.problems import load_problems; print(*[p.id for p in load_problems(%r)])"


def ids_in_another_process(path: str, hash_seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", IDS % path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()


def test_every_task_makes_the_same_problems_in_every_process() -> None:
    path = f"reasoning_gym:{','.join(TASKS)}?size=8&seed=5000"
    ids = [problem.id for problem in load_problems(path)]
    assert len(ids) > 7 * len(TASKS)
    assert ids_in_another_process(path, "1") == ids_in_another_process(path, "2") == ids


def test_another_seed_makes_other_problems_and_a_larger_size_begins_with_the_same() -> None:
    def ids(query: str) -> list[str]:
        return [problem.id for problem in load_problems(f"reasoning_gym:chain_sum,gcd?{query}")]

    assert not set(ids("size=20&seed=1")) & set(ids("size=20&seed=2"))  # by itself reasoning-gym shares 19 of 20
    assert ids("size=40&seed=1")[:40] == ids("size=20&seed=1")
    assert ids("size=20") == ids("size=20&seed=0")


def test_a_problem_says_where_it_is_from_and_tasks_take_turns() -> None:
    problems = load_problems("reasoning_gym:gcd,chain_sum?size=3&chain_sum.min_terms=5&chain_sum.max_terms=5")
    assert [problem.source.partition(":")[2] for problem in problems] == ["gcd", "chain_sum"] * 3
    assert {(problem.kind, problem.license) for problem in problems} == {("math", "Apache-2.0")}
    first = problems[1]
    assert len(re.findall(r"\d+", first.problem)) == 5
    assert (first.meta["task"], first.meta["index"], first.meta["seed"]) == ("chain_sum", 0, 0)
    assert first.meta["made_by"].startswith("reasoning-gym ")
    json.dumps([problem.meta for problem in problems])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("chain_sun", ("unknown task 'chain_sun'", "did you mean chain_sum?")),
        ("wholly_unlike", ("unknown task", "known: aiw, basic_arithmetic")),
        ("countdown", ("the verifier cannot judge countdown", "chain_sum")),
        ("", ("no task is named", "reasoning_gym:chain_sum")),
        ("chain_sum?min_term=3", ("chain_sum has no parameter 'min_term'", "did you mean min_terms?")),
        ("chain_sum,gcd?min_terms=3", ("gcd has no parameter 'min_terms'",)),
        ("chain_sum?gcd.size=3", ("for the task gcd, which is not among chain_sum",)),
        ("chain_sum?min_terms=many", ("min_terms = many", "takes a int, such as 2")),
        ("chain_sum?min_terms=true", ("min_terms = true", "takes a int")),
        ("chain_sum?size=0", ("size = 0: it must be from 1 to 1,000,000",)),
        ("gcd?seed=-1", ("seed = -1: it must not be negative",)),
        ("chain_sum?size", ("'size' is not of the form parameter=value",)),
        ("chain_sum?min_terms=9&max_terms=3", ("chain_sum refuses min_terms = 9, max_terms = 3",)),
    ],
)
def test_what_is_wrong_with_a_path_is_said_before_anything_is_made(path: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as refused:
        local_path(f"reasoning_gym:{path}")
    assert str(refused.value).startswith(f"reasoning_gym:{path}: ")
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_the_command_line_refuses_an_unknown_task_and_a_missing_package(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, problems={"path": "reasoning_gym:chain_sun"})
    assert_one_error_line(r1distill("generate", recipe), "unknown task 'chain_sun'", "chain_sum?")
    recipe = recipe_file(tmp_path, problems={"path": "reasoning_gym:chain_sum"})
    without = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'reasoning_gym' else f(n)"
    )
    result = r1distill("generate", recipe, before=without)
    assert_one_error_line(result, "reasoning_gym, which is not installed", 'pip install "r1distill[reasoning-gym]"')


def test_a_dry_run_counts_the_problems_that_would_be_made(tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, problems={"path": "reasoning_gym:lcm,gcd?size=7"}, generate={"samples": 2})
    result = r1distill("generate", recipe, "--dry-run")
    assert "problems  reasoning_gym:lcm,gcd?size=7: 14, so 28 samples at most" in result.stdout, result.stderr


def test_the_release_that_makes_the_problems_is_part_of_what_a_stage_was_given() -> None:
    assert re.fullmatch(r"reasoning-gym \d.*", problems_sha256("reasoning_gym:gcd") or "")


# ---------------------------------------------------------------- what the rules say of right and of wrong answers


def golds(task: str, number: int) -> list[tuple[str, Any]]:
    return [(problem.answer or "", problem) for problem in load_problems(f"reasoning_gym:{task}?size={number}&seed=11")]


def wrong_answers(answer: str, others: list[str], draw: random.Random) -> Iterator[str]:
    """A character changed, two parts exchanged, one left out, said twice, run together; a sign; other problems' answers."""
    places = [place for place, character in enumerate(answer) if character.isalnum()]
    for place in draw.sample(places, min(3, len(places))):
        alphabet = "0123456789" if answer[place].isdigit() else "abcdefghij"
        other = draw.choice([character for character in alphabet if character != answer[place].lower()])
        yield answer[:place] + other + answer[place + 1 :]
    parts = [match.span() for match in re.finditer(r"[^\s,\[\]\"'()]+", answer)]
    if len(parts) > 1:
        (a, b), (c, d) = (parts[place] for place in sorted(draw.sample(range(len(parts)), 2)))
        yield answer[:a] + answer[c:d] + answer[b:c] + answer[a:b] + answer[d:]
        yield answer[:a] + answer[b:].lstrip(" ,'\"")
        yield answer[:b] + ", " + answer[a:b] + answer[b:]
        place = draw.randrange(len(parts) - 1)
        yield answer[: parts[place][1]] + answer[parts[place + 1][0] :]
    if re.fullmatch(r"[\d.]+", answer):
        yield f"-{answer}"
    yield from draw.sample(others, min(3, len(others)))


def same_to_a_reader(first: str, second: str) -> bool:
    """Spaces apart, in another order of a sum, and zero with a sign: not wrong at all."""
    plain = [re.sub(r"\s", "", text) for text in (first, second)]
    terms = [sorted(term.lstrip("+") for term in re.findall(r"[-+]?[\d.]+i?", text)) for text in plain]
    zeros = {text.lstrip("-") for text in plain} == {"0"}
    return plain[0] == plain[1] or zeros or ("i" in first and terms[0] == terms[1])


@pytest.mark.parametrize("task", TASKS)
def test_the_rules_accept_the_answer_of_a_task_and_no_wrong_one(task: str) -> None:
    draw = random.Random(7)
    answers = [answer for answer, _ in golds(task, 8 if task == "zebra_puzzles" else 25)]
    judged = 0
    for answer in answers:
        assert check_math(answer, answer)[0]
        others = sorted({other for other in answers if other != answer})
        for wrong in wrong_answers(answer, others, draw):
            if wrong.strip() and not same_to_a_reader(answer, wrong):
                judged += 1
                assert not check_math(answer, wrong)[0], (task, answer, wrong)
    assert judged > len(answers)


@pytest.mark.parametrize(
    ("task", "gold", "wrong"),
    [
        ("word_sorting", "ant, bee, cow", "bee, ant, cow"),
        ("prime_factorization", "2 × 2 × 3", "12"),
    ],
)
def test_tasks_whose_wrong_answers_the_rules_accept_are_left_out(task: str, gold: str, wrong: str) -> None:
    assert task not in TASKS
    assert check_math(gold, wrong)[0], f"the rules tell {wrong!r} from {gold!r} now: {task} can be offered"
