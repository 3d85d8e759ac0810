"""Which traces are taught: every drop has its one reason, and the numbers add up."""

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_run

from r1distill.errors import UserError
from r1distill.filter.pairs import paired
from r1distill.filter.select import KEPT, read_tags, select
from r1distill.filter.split import share_of
from r1distill.filter.stage import filter_stage
from r1distill.filter.tagging import tag
from r1distill.prompting import split_thinking
from r1distill.records import Decision, FinishReason, Outcome, Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, read_records, write_records

GOOD = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"
Row = tuple[Trace, Verdict]


def row(
    problem_id: str = "p", sample: int = 0, *, outcome: Outcome = "correct", finish: FinishReason = "stop",
    text: str = GOOD, entropy: float | None = 0.3,
) -> Row:  # fmt: skip
    thinking, answer = split_thinking(text)
    trace = Trace(problem_id, sample, "m", "sha", 0, text, thinking, answer, finish, mean_entropy_nats=entropy)
    return trace, Verdict(problem_id, sample, outcome)


def reasons(rows: list[Row], folder: Path, **filter: Any) -> list[str]:
    run = sampled_run(folder, rows, filter=filter)
    tag(run, Clock(run, "filter"))
    selection = select(read_tags(run.tags, run.recipe.filter), run.recipe.filter, 0)
    return [selection.names[place] for place in selection.reason]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"finish": "error", "outcome": "error", "text": ""}, "failed"),
        ({"finish": "length"}, "truncated"),  # correct or not
        ({"finish": "repetition"}, "repetition"),
        ({"outcome": "incorrect"}, "incorrect"),
        ({"outcome": "no_answer"}, "no_answer"),
        ({"outcome": "unverifiable"}, "unverifiable"),
        ({"outcome": "timeout"}, "timeout"),
        ({"outcome": "error"}, "error"),
        ({"text": "\\boxed{2}"}, "malformed"),
        ({"text": "1 + 1\n</think>\n\\boxed{2}"}, "malformed"),
        ({"text": f"{GOOD}<think>"}, "malformed"),
        ({"text": "<think>\\boxed{2}</think>"}, "malformed"),
        ({"entropy": 0.86}, "high_entropy"),
        ({"entropy": 0.85}, None),  # the limit itself is allowed
        ({"entropy": None}, None),
        ({"outcome": "incorrect", "entropy": 9.0}, "incorrect"),  # the first rule that speaks
    ],
)
def test_each_reason_by_its_name(changed: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    assert reasons([row(**changed)], tmp_path) == [reason or KEPT]


def test_rules_can_be_turned_off(tmp_path: Path) -> None:
    assert reasons([row(outcome="incorrect")], tmp_path, require_correct=False) == [KEPT]
    assert reasons([row(entropy=99.0)], tmp_path, max_mean_entropy_nats=0) == [KEPT]
    loose = {"require_correct": False, "max_mean_entropy_nats": 0}
    assert reasons([row(finish="length")], tmp_path, **loose) == ["truncated"]


def test_no_more_than_the_wanted_number_of_a_problem_is_kept(tmp_path: Path) -> None:
    rows = [
        row("a", 0), row("a", 1, outcome="incorrect"), row("a", 2), row("a", 3), row("b", 0), row("b", 1), row("b", 2),
    ]  # fmt: skip
    assert reasons(rows, tmp_path, max_per_problem=2) == [
        "kept", "incorrect", "kept", "over_max_per_problem", "kept", "kept", "over_max_per_problem",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("traces", "verdicts", "words"),
    [
        (["a", "b"], ["a", "c"], "trace b/0, verdict c/0"),
        (["a", "b"], ["a"], "trace b/0, no verdict"),
        (["a"], ["a", "b"], "no trace, verdict b/0"),
    ],
)
def test_verdicts_of_another_run_are_refused(traces: list[str], verdicts: list[str], words: str) -> None:
    with pytest.raises(UserError, match=f"{words}.*run `r1distill verify` again"):
        list(paired([row(name)[0] for name in traces], [row(name)[1] for name in verdicts]))


# ---------------------------------------------------------------- the stage


def sampled_run(folder: Path, rows: list[Row], **sections: Any) -> Run:
    """A run that was sampled and verified. Its replies are all the same words."""
    filter = {"drop_duplicates": False, **sections.pop("filter", {})}
    run = small_run(folder, filter=filter, **sections)
    ids = sorted({trace.problem_id for trace, _ in rows})
    problems = [
        Problem(f"What is {name}?", answer="2", source=f"set {n % 2}", license="MIT", id=name)
        for n, name in enumerate(ids)
    ]
    write_records(run.problems, Problem, problems)
    write_records(run.traces / "00000.parquet", Trace, [trace for trace, _ in rows])
    write_records(run.verdicts, Verdict, [verdict for _, verdict in rows])
    return run


def test_the_dataset_holds_what_was_kept(tmp_path: Path) -> None:
    rows = [row(f"{n:02}", sample, outcome="correct" if n % 3 else "incorrect") for n in range(30) for sample in (0, 1)]
    run = sampled_run(tmp_path, rows)
    counts = filter_stage(run, Clock(run, "filter"))
    assert (counts["sampled"], counts["kept"], counts["dropped"]) == (60, 40, {"incorrect": 20})
    assert read_json(run.funnel)["by_source"]["set 0"]["sampled"] == 30
    decisions = list(read_records(run.decisions, Decision))
    assert [(d.problem_id, d.sample) for d in decisions] == [(t.problem_id, t.sample) for t, _ in rows]
    examples = pq.read_table(run.dataset / "train.parquet").to_pylist()
    assert len(examples) == 40 == counts["dataset"]["train"]
    first = examples[0]
    assert first["prompt"].startswith("What is 01?\n\nPlease reason step by step")
    assert first["completion"] == GOOD
    assert first["messages"] == [
        {"role": "user", "content": first["prompt"]},
        {"role": "assistant", "content": GOOD},
    ]
    assert (first["thinking"], first["solution"], first["answer"]) == ("1 + 1 = 2", "\\boxed{2}", "2")
    assert (first["source"], first["license"]) == ("set 1", "MIT")
    assert sorted(os.listdir(run.dataset)) == ["README.md", "train.parquet"]
    assert not (run.folder / ".dataset").exists()


def test_the_card_tells_the_hub_where_the_splits_are(tmp_path: Path) -> None:
    run = sampled_run(tmp_path, [row(f"{n}") for n in range(40)], filter={"validation_fraction": 0.5})
    counts = filter_stage(run, Clock(run, "filter"))["dataset"]
    _, header, body = (run.dataset / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    for split in ("train", "validation"):
        assert f"  - split: {split}\n    path: {split}.parquet\n" in header
        assert counts[split] == pq.read_metadata(run.dataset / f"{split}.parquet").num_rows > 5
    assert "configs:\n- config_name: default\n  data_files:\n" in header
    assert "| sampled | 40 |" in body
    assert "| **kept** | 40 |" in body


def test_no_problem_is_on_both_sides_of_the_split_and_each_stays_on_its_own(tmp_path: Path) -> None:
    sides: list[dict[str, set[str]]] = []
    for name, problems in (("few", 30), ("more", 60)):
        rows = [row(f"{n:02}", sample) for n in range(problems) for sample in range(3)]
        run = sampled_run(tmp_path / name, rows, filter={"validation_fraction": 0.3})
        filter_stage(run, Clock(run, "filter"))
        sides.append(
            {
                split: set(pq.read_table(run.dataset / f"{split}.parquet")["problem_id"].to_pylist())
                for split in ("train", "validation")
            }
        )
    for side in sides:
        assert not side["train"] & side["validation"]
    for split in ("train", "validation"):
        assert sides[0][split] < sides[1][split]


@given(st.text())
def test_the_share_of_a_problem_is_below_one(problem_id: str) -> None:
    assert 0 <= share_of(problem_id) < 1


def test_the_wanted_share_of_the_problems_is_for_validation() -> None:
    shares = [share_of(str(n)) for n in range(10_000)]
    assert sum(share < 0.1 for share in shares) == pytest.approx(1_000, abs=100)


def test_when_nothing_is_left_the_reasons_are_said_and_the_decisions_stay(tmp_path: Path) -> None:
    rows = [row("a", 0, outcome="incorrect"), row("a", 1, finish="length"), row("b", 0, outcome="incorrect")]
    run = sampled_run(tmp_path, rows)
    with pytest.raises(
        UserError, match=r"no trace is left .*3 sampled; dropped: 2 incorrect, 1 truncated.*sample more"
    ):
        filter_stage(run, Clock(run, "filter"))
    assert [d.reason for d in read_records(run.decisions, Decision)] == ["incorrect", "truncated", "incorrect"]
    assert read_json(run.funnel)["dropped"] == {"incorrect": 2, "truncated": 1}
    assert not run.dataset.exists()
    assert not (run.folder / ".dataset").exists()
    assert len(list(read_records(run.traces, Trace))) == 3


def test_a_dataset_without_a_training_split_is_refused(tmp_path: Path) -> None:
    held_out = next(str(n) for n in range(1000) if share_of(str(n)) < 0.5)
    run = sampled_run(tmp_path, [row(held_out)], filter={"validation_fraction": 0.5})
    with pytest.raises(UserError, match=r"validation_fraction = 0\.5\); make it smaller"):
        filter_stage(run, Clock(run, "filter"))


def test_a_second_filtering_replaces_the_dataset(tmp_path: Path) -> None:
    rows = [row(str(n), 0, entropy=n / 10) for n in range(8)]
    for limit, kept in ((0.55, 6), (0.25, 3)):
        run = sampled_run(tmp_path, rows, filter={"max_mean_entropy_nats": limit})
        assert filter_stage(run, Clock(run, "filter"))["kept"] == kept
        assert pq.read_metadata(run.dataset / "train.parquet").num_rows == kept
