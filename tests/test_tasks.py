"""Benchmarks as files: what they say holds, their data is found and known again, and gold scores 100 %."""

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from check_gold import KNOWN, SETTINGS, check, reply_to
from hypothesis import given
from hypothesis import strategies as st
from small_run import DATA, assert_one_error_line, jsonl, r1distill

from r1distill.errors import UserError
from r1distill.evaluate.listing import found_model
from r1distill.evaluate.protocols import load_protocol
from r1distill.evaluate.tasks import (
    Published,
    Task,
    data_of,
    data_sha256,
    data_warning,
    known_copy,
    load_task,
    published_scores,
    published_with,
    rerun_band,
)
from r1distill.problems import load_problems, options_of
from r1distill.records import Problem
from r1distill.resources import shipped_names
from r1distill.sections import Between
from r1distill.verify import VerifierPool

NAMES = shipped_names("eval", ".toml")
STUDENTS = [
    f"DeepSeek-R1-Distill-{name}" for name in ("Qwen-1.5B", "Qwen-7B", "Qwen-14B", "Qwen-32B", "Llama-8B", "Llama-70B")
]
ISSUE = (
    "aime24 aime25 amc23 math500 gsm8k minerva_math olympiadbench gpqa_diamond mmlu_pro livecodebench livecodebench_v6 "
    "humaneval humanevalplus mbpp mbppplus codeforces"
)
SHARED = "aime24 aime25 amc23 math500 gsm8k humaneval humanevalplus mbpp mbppplus deepcoder_codeforces"


def task_of(published: list[dict[str, Any]], **more: Any) -> Task:
    tables = {"name": "t", "title": "T", "license": "", "samples": 4, "data": {"path": "org/set"}, **more}
    return Task.model_validate({**tables, "published": published})


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_benchmark_says_where_from_and_under_what_licence(name: str) -> None:
    task = load_task(name)
    assert task.license
    assert load_protocol(task.protocol).name == task.protocol
    if name != "quickstart":
        assert "/" in task.data.path
        assert re.fullmatch(r"[0-9a-f]{40}", task.data.revision or "")
    for published in task.published:
        assert published.source
        assert published.scores
        assert not published.protocol or load_protocol(published.protocol).name == published.protocol
        assert set(published.deviations) <= set(published.scores)
        top = 100 if published.metric != "rating" else 4000
        assert all(0 < score < top for score in published.scores.values())
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in task.sha256.values())


def test_every_benchmark_of_the_issue_is_there() -> None:
    assert set(ISSUE.split()) <= set(NAMES)


def test_the_published_scores_are_those_of_the_readme_of_r1() -> None:
    """github.com/deepseek-ai/DeepSeek-R1 at 0cf7856, Distilled Model Evaluation, a row a model."""
    rows = [
        [28.9, 52.7, 83.9, 33.8, 16.9, 954], [55.5, 83.3, 92.8, 49.1, 37.6, 1189], [69.7, 80.0, 93.9, 59.1, 53.1, 1481],
        [72.6, 83.3, 94.3, 62.1, 57.2, 1691], [50.4, 80.0, 89.1, 49.0, 39.6, 1205], [70.0, 86.7, 94.5, 65.2, 57.5, 1633],
    ]  # fmt: skip
    columns = [
        ("aime24", "pass@1"), ("aime24", "cons@64"), ("math500", "pass@1"), ("gpqa_diamond", "pass@1"),
        ("livecodebench", "pass@1"), ("codeforces", "rating"),
    ]  # fmt: skip
    for student, row in zip(STUDENTS, rows, strict=True):
        found = [published_scores(load_task(name), student, metric)[0][0] for name, metric in columns]
        assert found == row
    r1 = [
        published_scores(load_task(name), "DeepSeek-R1")[0][0]
        for name in ("aime24", "math500", "gpqa_diamond", "mmlu_pro")
    ]
    assert r1 == [79.8, 97.3, 71.5, 84.0]


def test_scores_of_the_same_protocol_are_put_beside_ours() -> None:
    task = load_task("aime24")
    assert [
        (published_with(task, name) or {})["scores"][STUDENTS[1]] for name in ("deepseek-r1", "open-r1", "sober")
    ] == [
        55.5,
        50.8,
        52.3,
    ]
    assert (published_with(task, "greedy") or {})["protocol"] == "deepseek-r1"
    assert published_with(load_task("gsm8k"), "deepseek-r1") is None
    assert published_with(load_task("codeforces"), "deepseek-r1") is None  # a rating is no pass@1


# ------------------------------------------------------------ the data


def test_a_local_file_goes_before_a_folder_and_a_folder_before_the_hub(tmp_path: Path) -> None:
    task = load_task("gsm8k")
    (tmp_path / "gsm8k").mkdir()
    assert data_of(task).path == "openai/gsm8k"
    assert data_of(task, folder=str(tmp_path)).path == "openai/gsm8k"  # it has no test.jsonl
    file = jsonl(tmp_path / "gsm8k" / "test.jsonl", [])
    assert data_of(task, {"aime24": "elsewhere"}, str(tmp_path)).path == str(file)
    assert data_of(task, {"gsm8k": "elsewhere"}, str(tmp_path)).path == "elsewhere"
    assert data_of(task, folder=str(tmp_path)).split == "test"
    with pytest.raises(UserError, match=r"eval\.data_dir = .*no such folder"):
        data_of(task, folder=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "name", ["aime24", "aime24.jsonl", "aime24.jsonl.gz", "aime24.parquet", "aime24.json", "aime24.csv"]
)
def test_a_file_or_folder_of_the_tasks_name_is_its_data(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    assert data_of(load_task("aime24"), folder=str(tmp_path)).path == str(tmp_path / name)


@given(st.permutations(range(6)))
def test_the_hash_of_the_data_is_of_what_is_asked_and_not_of_how_it_is_stored(order: list[int]) -> None:
    problems = [Problem(f"What is {n} + 1?", answer=str(n + 1), source="a") for n in range(6)]
    turned = [Problem(problems[n].problem, answer=problems[n].answer, source="b", meta={"level": n}) for n in order]
    assert data_sha256(turned) == data_sha256(problems)
    changed = [*turned[1:], Problem(turned[0].problem, answer="0")]
    assert data_sha256(changed) != data_sha256(problems) != data_sha256(problems[1:])


def test_data_that_is_no_known_copy_is_said_and_not_refused() -> None:
    task = task_of([], sha256={"ours": "a" * 64})
    assert known_copy(task, "a" * 64) == "ours"
    assert data_warning(task, "a" * 64) is None
    assert "is none of the known copies (ours)" in (data_warning(task, "b" * 64) or "")
    assert data_warning(task_of([]), "b" * 64) is None


@pytest.mark.parametrize("name", SHARED.split())
def test_the_shared_copy_of_a_benchmark_is_whole_and_known(name: str) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not on this machine")
    task = load_task(name)
    section = data_of(task, folder=str(DATA))
    problems = load_problems(section.path, **options_of(section))
    assert len(problems) == task.questions
    assert {problem.kind for problem in problems} == {task.kind}
    assert known_copy(task, data_sha256(problems)) is not None


# ------------------------------------------------------------ bands


def test_a_band_spans_the_published_scores_and_what_chance_adds() -> None:
    task = task_of(
        [
            {"source": "a", "samples": 16, "scores": {"M": 50.0}},
            {"source": "b", "samples": 4, "scores": {"M": 60.0}, "deviations": {"M": 3.0}},
        ],
        questions=100,
    )
    low, high = rerun_band(task, "org/M", 16) or (0, 0)
    assert low == pytest.approx(50 - 2 * 3 * math.sqrt(1 / 16 + 1 / 16))
    assert high == pytest.approx(60 + 2 * 3 * math.sqrt(1 / 16 + 1 / 4))
    assert rerun_band(task, "other", 16) is None


def test_a_rating_gives_no_band_and_a_band_stays_within_100_percent() -> None:
    rating = {"source": "a", "metric": "rating", "scores": {"M": 1200.0}}
    assert rerun_band(task_of([rating], questions=10), "M", 1) is None
    high = {"source": "a", "samples": 1, "scores": {"M": 99.0}}
    assert (rerun_band(task_of([high], questions=10), "M", 1) or (0, 0))[1] == 100.0
    assert rerun_band(task_of([high]), "M", 1) is None  # neither a deviation nor a number of questions


def test_a_re_run_lands_in_its_band_nineteen_times_of_twenty() -> None:
    """Both runs simulated, with questions of any difficulty, where the band knows no more than their number."""
    source = random.Random(0)
    questions, samples = 60, 4
    inside = 0
    for _ in range(400):
        difficulty = [source.betavariate(0.7, 0.7) for _ in range(questions)]

        def run(difficulty: list[float] = difficulty) -> float:
            right = sum(source.random() < share for share in difficulty for _ in range(samples))
            return 100 * right / (questions * samples)

        task = task_of([{"source": "a", "samples": samples, "scores": {"M": run()}}], questions=questions)
        low, high = rerun_band(task, "M", samples) or (0, 0)
        inside += low <= run() <= high
    assert inside >= 380  # an upper bound of the deviation: 95 % at the least


# ------------------------------------------------------------ the command


def test_the_list_names_every_benchmark_and_protocol(tmp_path: Path) -> None:
    said = r1distill("eval", "--list", cwd=tmp_path, COLUMNS="200")
    assert said.returncode == 0, said.stderr
    assert all(f" {name} " in said.stdout for name in (*NAMES, *shipped_names("eval/protocols", ".toml")))
    assert "55.5 (deepseek-r1)" in said.stdout
    said = r1distill("eval", "--list", "--published", "qwen-14b", cwd=tmp_path, COLUMNS="200")
    assert "69.7 (deepseek-r1)" in said.stdout


def test_the_list_for_machines_has_every_prompt_and_band(tmp_path: Path) -> None:
    said = r1distill("eval", "--list", "--json", cwd=tmp_path)
    tables = json.loads(said.stdout)
    assert [entry["name"] for entry in tables["benchmarks"]] == NAMES
    by_name = {entry["name"]: entry for entry in tables["benchmarks"]}
    aime = by_name["aime24"]
    assert aime["asked"]["prompt"].endswith("put your final answer within \\boxed{}.")
    assert (aime["asked"]["temperature"], aime["asked"]["top_p"], aime["asked"]["max_tokens"]) == (0.6, 0.95, 32768)
    assert set(aime["bands"]) == {*STUDENTS, "DeepSeek-R1"}
    assert {protocol["name"] for protocol in tables["protocols"]} >= {"deepseek-r1", "open-r1", "sober"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "eval needs a recipe, or --list"),
        (("--list", "quickstart"), "eval --list takes no recipe"),
        (("--json",), "need --list"),
        (("--list", "--published", "gpt"), "nobody's published name; give one of: DeepSeek-R1"),
    ],
)
def test_a_wrong_call_ends_in_one_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    assert_one_error_line(r1distill("eval", *arguments, cwd=tmp_path), words)


def test_a_part_of_a_models_name_has_to_be_of_one_alone() -> None:
    tasks = [load_task("aime24")]
    assert found_model("DeepSeek-R1", tasks) == "DeepSeek-R1"  # itself, though it is a part of all
    assert found_model("llama-8b", tasks) == "DeepSeek-R1-Distill-Llama-8B"
    with pytest.raises(UserError, match=r"in the names of .*Qwen-1\.5B, .*Qwen-14B"):
        found_model("Qwen-1", tasks)


# ------------------------------------------------------------ gold


@pytest.mark.parametrize("name", SHARED.split())
def test_gold_scores_100_percent_and_silence_nothing(name: str) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not on this machine")
    task = load_task(name)
    with VerifierPool(1, code=SETTINGS) as pool:
        result = check(task, data_of(task, folder=str(DATA)), pool, limit=8 if task.kind == "code" else 200)
    assert result.empty == 0
    assert result.unexplained(name) == []
    assert result.right == result.gold - len([each for each in result.wrong if each[0] in KNOWN.get(name, {})])
    assert (result.gold > 0) is (name != "deepcoder_codeforces")  # which comes without solutions


def test_gold_of_choices_scores_100_percent_in_the_protocols_order(tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        wrong = {f"Incorrect Answer {i}": f"{i}, not {n}" for i in (1, 2, 3)}
        rows.append({"Question": f"Which is {n}?", "Correct Answer": f"it is {n}", **wrong})
    task = load_task("gpqa_diamond")
    section = data_of(task, {"gpqa_diamond": str(jsonl(tmp_path / "p.jsonl", rows))})
    with VerifierPool(1) as pool:
        result = check(task, section, pool)
    assert (result.questions, result.right, result.empty) == (40, 40, 0)


def test_a_benchmark_of_ones_own_is_one_file(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "mine.jsonl", [{"ask": "1 + 1?", "reply": "2", "day": "2025-01-01"}])
    path = tmp_path / "mine.toml"
    path.write_text(
        f'name = "mine"\ntitle = "Mine"\nlicense = "own"\nsamples = 2\n[data]\npath = "{data}"\n'
        'columns = { problem = "ask", answer = "reply" }\nwhere = { day = { at_least = "2025" } }\n'
    )
    task = load_task(str(path))
    assert task.data.where == {"day": Between(at_least="2025")}
    [problem] = load_problems(task.data.path, **options_of(task.data))
    assert reply_to(problem, None) == "<think>\nx\n</think>\n\n\\boxed{2}"


def test_a_wrong_table_of_published_scores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "m"\ntitle = ""\nlicense = ""\nsamples = 1\n[data]\npath = "x"\n[[published]]\nsource = "s"\nmetrics = "x"\n'
        "[published.scores]\nM = 1.0\n"
    )
    with pytest.raises(UserError, match=r"unknown key published\.0\.metrics; did you mean .*metric"):
        load_task(str(path))
    assert Published(source="s", scores={"M": 1}).metric == "pass@1"
