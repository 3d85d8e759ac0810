"""tags.parquet of a run: measured once, the same by every executor, with what several traces and the benchmarks say."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filtered_run import GOOD, problem, sampled, trace
from small_run import ROOT, assert_one_error_line, jsonl, r1distill

from r1distill.filter.stage import filter_stage
from r1distill.filter.tagging import tag
from r1distill.records import Problem, Trace
from r1distill.run import Clock, Run
from r1distill.sections import Filter
from r1distill.store import read_json

QUESTION = (
    "A farmer in Devonshire keeps thirty-one spotted geese and several brown otters beside a narrow canal; altogether the "
    "creatures show ninety-eight feet on the towpath. How many otters does the farmer keep there?"
)
OTHER = (
    "Every morning a lighthouse keeper climbs 212 steps carrying 3 litres of lamp oil, and on the way down counts the gulls on "
    "each of the seven landings, never fewer than four. What is the least number of gulls counted in a week?"
)


def benchmark(folder: Path, *questions: str, name: str = "farm") -> Path:
    """A benchmark of one's own."""
    jsonl(folder / f"{name}.jsonl", [{"problem": question, "answer": "9"} for question in questions])
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\ntitle = "{name}"\nkind = "math"\nlicense = "MIT"\nsamples = 1\n'
        f'[data]\npath = "{folder / name}.jsonl"\n'
    )
    return path


def reply(words: str) -> str:
    return f"<think>\n{words}\n</think>\n\nThe answer is \\boxed{{2}}."


def two_problems() -> tuple[list[Problem], list[Trace]]:
    problems = [problem("geese", problem=f"In our village they tell this. {QUESTION}"), problem("steps", problem=OTHER)]
    words = (
        "First I count the feet of all the geese, two for each of them, and take these from the total that is given."
    )
    traces = [
        trace("geese", 0, reply(words)),
        trace(
            "steps", 0, reply("Seven landings with four gulls each are 28 gulls in a morning, which makes 196 a week.")
        ),
        trace(
            "steps", 1, reply("The week has seven mornings; on each the keeper passes seven landings, so 7 * 7 * 4.")
        ),
    ]
    return problems, traces


def tags_of(run: Run) -> list[dict[str, Any]]:
    return pq.read_table(run.tags).to_pylist()


def test_a_problem_of_a_benchmark_is_dropped_and_the_matching_words_are_kept(tmp_path: Path) -> None:
    task = benchmark(tmp_path, QUESTION)
    run = sampled(tmp_path, *two_problems(), contamination={"benchmarks": [str(task), "quickstart"]})
    counts = filter_stage(run, Clock(run, "filter"))
    assert counts["dropped"] == {"contaminated": 1}
    geese, *steps = tags_of(run)
    assert (geese["contaminated_by"], geese["contamination_method"]) == ("farm", "ngram")
    assert "spotted geese and several brown otters" in geese["contamination_span"]
    assert [row["contaminated_by"] for row in steps] == ["", ""]
    report = read_json(run.contamination)
    assert (report["problems"], report["contaminated"], report["not_checked"]) == (2, 1, {})
    assert {each["name"]: each["questions"] for each in report["benchmarks"]} == {"farm": 1, "quickstart": 120}
    assert "farm" in (run.dataset / "README.md").read_text()


def test_what_is_not_compared_is_not_measured_and_said(tmp_path: Path) -> None:
    task = benchmark(tmp_path, QUESTION)
    run = sampled(tmp_path, *two_problems(), contamination={"benchmarks": [str(task)], "enabled": False})
    counts = filter_stage(run, Clock(run, "filter"))
    assert (counts["kept"], counts["unmeasured"]["contaminated"]) == (3, 3)
    assert {row["contaminated_by"] for row in tags_of(run)} == {None}
    assert read_json(run.contamination)["settings"]["enabled"] is False


def test_benchmarks_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sampled(tmp_path, *two_problems(), contamination={"benchmarks": ["quickstart", "aime24"]})
    filter_stage(run, Clock(run, "filter"))
    assert "Hub" in read_json(run.contamination)["not_checked"]["aime24"]
    assert "not checked for contamination: aime24" in capsys.readouterr().out


def test_a_trace_that_repeats_another_is_dropped_wherever_that_one_is(tmp_path: Path) -> None:
    problems, traces = two_problems()
    problems.append(problem("steps again", problem=OTHER.replace("Every", "Each")))
    traces += [trace("steps", 2, traces[2].text), trace("steps again", 0, traces[1].text)]
    run = sampled(tmp_path, problems, traces, filter={"drop_duplicates": True})
    counts = filter_stage(run, Clock(run, "filter"))
    rows = {(row["problem_id"], row["sample"]): row for row in tags_of(run)}
    assert rows["steps", 2]["duplicate_of"] == "steps/1"
    assert rows["steps again", 0]["duplicate_of"] == "steps/0"
    assert rows["steps again", 0]["duplicate_similarity"] > 0.8
    assert rows["steps again", 0]["problem_duplicate_of"] == "steps"
    assert counts["dropped"] == {"duplicate": 2}


def test_the_same_words_in_reply_to_another_question_are_another_example(tmp_path: Path) -> None:
    problems, traces = two_problems()
    traces = [trace(each.problem_id, each.sample, reply("It is 2.")) for each in traces]
    run = sampled(tmp_path, problems, traces)
    filter_stage(run, Clock(run, "filter"))
    assert [row["duplicate_of"] for row in tags_of(run)] == ["", "", "steps/0"]


def test_long_replies_are_compared_whatever_they_reply_to_and_a_long_question_makes_no_copies(tmp_path: Path) -> None:
    problems, _ = two_problems()
    long = reply(" ".join(f"In step {k} the keeper has climbed {k * k} of them." for k in range(60)))
    texts = [long, reply("There are 4 gulls."), reply("It is 196 in a week."), long]
    ids = ["geese", "steps", "steps", "steps"]
    traces = [trace(name, sample, text) for sample, (name, text) in enumerate(zip(ids, texts, strict=True))]
    run = sampled(tmp_path, problems, traces)
    filter_stage(run, Clock(run, "filter"))
    assert [row["duplicate_of"] for row in tags_of(run)] == ["", "", "", "geese/0"]


def test_another_rule_measures_nothing_again(tmp_path: Path) -> None:
    problems, traces = two_problems()
    filter_stage(run := sampled(tmp_path, problems, traces), Clock(run, "filter"))
    before = run.tags.stat(), run.tags.read_bytes(), run.contamination.stat()
    changed = run.recipe.model_copy(
        update={"filter": run.recipe.filter.model_copy(update={"max_per_problem": 1, "drop_contaminated": False})}
    )
    counts = filter_stage(Run(changed), Clock(run, "filter"))
    assert counts["dropped"] == {"over_max_per_problem": 1}
    assert (run.tags.stat(), run.tags.read_bytes(), run.contamination.stat()) == before


@pytest.mark.parametrize("what", ["traces", "the benchmark", "the settings"])
def test_what_changed_is_measured_again(tmp_path: Path, what: str) -> None:
    problems, traces = two_problems()
    settings = {"benchmarks": [str(benchmark(tmp_path, QUESTION))]}
    run = sampled(tmp_path, problems, traces, contamination=settings)
    tag(run, Clock(run, "filter"))
    if what == "traces":
        run = sampled(tmp_path, problems, [*traces, trace("steps", 2, reply("Nothing like the others, 9."))])
        tag(run, Clock(run, "filter"))
        assert len(tags_of(run)) == 4
        return
    if what == "the benchmark":
        benchmark(tmp_path, QUESTION, OTHER)
    else:
        settings["extra"] = [str(jsonl(tmp_path / "mine.jsonl", [{"problem": OTHER, "answer": "1"}]))]
        run = sampled(tmp_path, problems, traces, contamination=settings)
    tag(run, Clock(run, "filter"))
    assert [bool(row["contaminated_by"]) for row in tags_of(run)] == [True, True, True]


def test_a_file_of_the_recipe_that_is_no_benchmark_ends_the_command(tmp_path: Path) -> None:
    problems, traces = two_problems()
    for settings, words in (
        ({"benchmarks": ["no-such"]}, ("no-such",)),
        ({"benchmarks": ["quickstart"], "data": {"quickstart": str(tmp_path / "gone.jsonl")}}, ("gone.jsonl",)),
        ({"benchmarks": ["quickstart"], "extra": [str(tmp_path / "gone.jsonl")]}, ("gone.jsonl",)),
        ({"benchmarks": ["quickstart"], "data": {"aime24": "x.jsonl"}}, ("contamination.data.aime24",)),
    ):
        run = sampled(tmp_path / "run", problems, traces, contamination=settings)
        code = (
            "from r1distill.run import open_run, Clock\nfrom r1distill.filter.stage import filter_stage\nimport sys\n"
            "import r1distill.cli as cli\n"
            f"folder = __import__('pathlib').Path({str(run.folder)!r})\n"
            "cli.app = lambda: filter_stage(run := open_run(folder), Clock(run, 'filter'))"
        )
        assert_one_error_line(r1distill(before=code), *words)


def many_texts(n: int) -> tuple[list[Problem], list[Trace]]:
    """Texts of every kind that a measure looks for, in an order that is always the same."""
    kinds = [
        lambda k: reply(
            f"Let x be {k}. Then x + {k * 7} = {k * 8}, so that the sum of both is {k * 9}, as was to be shown."
        ),
        lambda k: reply("wait, no. " * (20 + k % 9)),
        lambda k: reply(f"首先我们计算{k}加{k}。答案是{2 * k}。 And then we go on in English for a while, with {k}."),
        lambda k: f"<think>\nnever closed {k}",
        lambda k: reply(f"As DeepSeek I would write to me{k}@example.org.\n```python\nprint({k})\n```"),
    ]
    problems = [
        problem(f"{k:04}", problem=f"{OTHER} And {k} of them?" if k % 3 else f"What is {k} + {k}?") for k in range(n)
    ]
    traces = [
        trace(f"{k:04}", sample, kinds[(k + sample) % len(kinds)](k), mean_entropy_nats=(k * 37 % 100) / 100)
        for k in range(n)
        for sample in range(2)
    ]
    return problems, traces


def results(run: Run) -> dict[str, bytes]:
    files = [run.tags, run.decisions, run.funnel, *sorted(run.dataset.glob("*.parquet"))]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, bytes]]:
    run = sampled(tmp_path_factory.mktemp("one"), *many_texts(60), filter={"workers": 1, "require_correct": False})
    filter_stage(run, Clock(run, "filter"))
    return run, results(run)


def again(run: Run, **changed: Any) -> dict[str, bytes]:
    """The results with tags measured anew by another executor."""
    run.tags.unlink()
    recipe = run.recipe.model_copy(update={"filter": run.recipe.filter.model_copy(update=changed)})
    filter_stage(Run(recipe), Clock(run, "filter"))
    return results(run)


@pytest.mark.parametrize(
    "filter", [{"clusters": {"eps": 0.4}}, {"pools": {}}, {"pools": {"diverse": "category"}, "clusters": {}}], ids=str
)
def test_regions_and_pools_are_found_in_a_run(tmp_path: Path, filter: dict[str, Any]) -> None:
    common = {"workers": 1, "require_correct": False}
    run = sampled(tmp_path, *many_texts(40), filter=common)
    filter_stage(run, Clock(run, "filter"))  # what this has measured is not enough for them
    run = Run(run.recipe.model_copy(update={"filter": Filter(**common, **filter)}))
    filter_stage(run, Clock(run, "filter"))
    kept, tags = json.loads(run.funnel.read_text())["kept"], tags_of(run)
    assert 0 < kept < len(tags)
    if "pools" in filter:
        pools = pq.read_table(run.dataset / "train.parquet")["pools"].to_pylist()
        assert len(pools) == kept
        assert {name for each in pools for name in each} >= {"diverse", "quality"}


def test_two_processes_measure_and_decide_the_same_to_the_byte(by_one_process: tuple[Run, dict[str, bytes]]) -> None:
    run, expected = by_one_process
    assert json.loads(expected["funnel.json"])["kept"] > 20
    assert again(run, workers=2) == expected


@pytest.fixture
def ray_cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of one node, in a process group of its own."""
    pytest.importorskip("ray", reason="needs the extra ray")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=200000000",
    ]  # fmt: skip
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in (tmp_path / "ray.log").read_text():
            assert head.poll() is None, (tmp_path / "ray.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


@pytest.mark.slow
def test_a_ray_cluster_measures_and_decides_the_same_to_the_byte(
    by_one_process: tuple[Run, dict[str, bytes]], ray_cluster: str
) -> None:
    run, expected = by_one_process
    assert again(run, ray=ray_cluster) == expected


def measure_until_killed(run: Run) -> None:
    tag(run, Clock(run, "filter"))


def test_a_killed_measuring_leaves_the_earlier_tags_and_decisions(tmp_path: Path) -> None:
    run = sampled(tmp_path, *many_texts(20), filter={"require_correct": False, "workers": 1})
    filter_stage(run, Clock(run, "filter"))
    before = results(run)
    later = sampled(tmp_path, *many_texts(1000), filter={"require_correct": False, "workers": 1})
    process = multiprocessing.get_context("fork").Process(target=measure_until_killed, args=(later,))
    process.start()
    time.sleep(0.3)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert results(run) == before
    filter_stage(later, Clock(later, "filter"))
    assert len(tags_of(later)) == 2000


@pytest.fixture
def with_student(tmp_path: Path, tiny_student: Path) -> Run:
    problems = [problem("sum", problem="What is 1 + 1?")]
    traces = [trace("sum", 0), trace("sum", 1, GOOD.replace("1 + 1", "one and one"))]
    return sampled(
        tmp_path, problems, traces, filter={"student_perplexity": True},
        train={"student": str(tiny_student), "dtype": "float32", "max_length": 512},
    )  # fmt: skip


def test_perplexity_under_the_student_is_a_column_where_it_is_asked_for(with_student: Run) -> None:
    tag(with_student, Clock(with_student, "filter"))
    values = [row["student_perplexity"] for row in tags_of(with_student)]
    assert len(values) == 2
    assert min(values) > 1
    assert values[0] != values[1]


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    """In a process of its own, which is not told to stay offline; nothing listens at the address of its Hub."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code = (
        "import json\nfrom r1distill.contamination_section import Contamination\n"
        "from r1distill.filter.registry import build_registry\nfrom huggingface_hub import constants\n"
        "found = build_registry(Contamination(), '2026-01-31')\n"
        "print(json.dumps([found.not_checked, [each.name for each in found.benchmarks], constants.HF_HUB_OFFLINE]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    not_checked, names, offline = json.loads(done.stdout)
    assert names == ["quickstart"]
    assert len(not_checked) >= 16
    assert "Retrying" not in done.stderr
    assert not offline  # afterwards it is asked again
