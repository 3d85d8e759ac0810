"""Public sets of traces as a run: one row in the published columns of each (own words, no copied data)."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import jsonl, small_run
from test_public_columns import ASK, MIXTURE, OPEN_R1, OPEN_THOUGHTS, OPEN_THOUGHTS_METADATA, REPLY, SOLUTION

from r1distill.errors import UserError
from r1distill.filter import public_traces
from r1distill.filter.public_rows import format_of, is_closed, replies_of
from r1distill.filter.public_traces import LABELS, import_traces, take_labels
from r1distill.filter.stage import filter_stage
from r1distill.records import Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, read_records
from r1distill.traces_section import Traces
from r1distill.verify.stage import verify_stage

THINKS = "<think>\nSix and eight.\n</think>\n\n\\boxed{14}"
OPEN_THOUGHTS_MATH = {
    "source": "olympiads", "problem": ASK, "solution": SOLUTION,
    "messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": SOLUTION}],
    "system": "Think at length.", "conversations": OPEN_THOUGHTS["conversations"],
    "generated_token_count": 77, "correct": True,
}  # fmt: skip
ROWS: dict[str, tuple[dict[str, Any], str, list[str], list[bool | None]]] = {
    "OpenR1-Math-220k": (OPEN_R1, "openr1-math", [REPLY, REPLY], [True, False]),
    "OpenThoughts-114k, metadata": (OPEN_THOUGHTS_METADATA, "openthoughts-metadata", [THINKS], [None]),
    "OpenThoughts-114k": (OPEN_THOUGHTS, "chat", ["<think>\n\\boxed{6}?\n</think>\n\n\\boxed{14}"], [None]),
    "OpenThoughts-114k-math": (
        OPEN_THOUGHTS_MATH, "openthoughts-math", ["<think>\n\\boxed{6}?\n</think>\n\n\\boxed{14}"], [True],
    ),
    "Mixture-of-Thoughts": (MIXTURE, "chat", [REPLY], [None]),
}  # fmt: skip


def imported(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Run:
    path = jsonl(folder / "set.jsonl", rows)
    # the replies of a row are the same words
    settings = {"require_correct": options.get("verdicts") != "theirs", "drop_duplicates": False}
    run = small_run(folder, filter=settings)
    import_traces(Traces(path=str(path), **options), run)
    return run


def traces_of(run: Run) -> list[Trace]:
    return list(read_records(run.traces, Trace))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_public_set_is_its_question_its_replies_and_its_labels(tmp_path: Path, name: str) -> None:
    row, format, texts, correct = ROWS[name]
    assert format_of(row, "here") == format
    run = imported(tmp_path, [row])
    [problem] = read_records(run.problems, Problem)
    assert problem.problem == ASK
    traces = traces_of(run)
    assert [trace.text for trace in traces] == texts
    assert [trace.sample for trace in traces] == list(range(len(texts)))
    assert {(trace.problem_id, trace.finish_reason) for trace in traces} == {(problem.id, "stop")}
    assert all(trace.thinking and trace.answer.startswith(("\\boxed{14}", "They have")) for trace in traces)
    labels = list(read_records(run.folder / LABELS, Verdict))
    words = {True: "correct", False: "incorrect", None: "unverifiable"}
    assert [label.outcome for label in labels] == [words[each] for each in correct]
    assert all(("no label" in label.detail) == (each is None) for label, each in zip(labels, correct, strict=True))


def test_tokens_that_a_set_counted_are_kept(tmp_path: Path) -> None:
    assert [trace.n_tokens for trace in traces_of(imported(tmp_path / "a", [MIXTURE]))] == [40]
    assert [trace.n_tokens for trace in traces_of(imported(tmp_path / "b", [OPEN_THOUGHTS_MATH]))] == [77]


def test_only_what_has_a_reference_can_be_judged(tmp_path: Path) -> None:
    """The box of a reply says nothing of whether it is right, so that it is no reference for itself."""
    [problem] = read_records(imported(tmp_path / "a", [MIXTURE]).problems, Problem)
    assert (problem.kind, problem.answer) == ("open", None)
    proof = {**OPEN_R1, "answer": "proof", "solution": "As was to be shown."}
    [problem] = read_records(imported(tmp_path / "b", [proof]).problems, Problem)
    assert (problem.kind, problem.answer, problem.problem) == ("open", None, ASK)


@pytest.mark.parametrize(
    ("changed", "ends", "labels"),
    [
        ({"finish_reasons": ["length", "stop"]}, ["length", "stop"], ["correct", "incorrect"]),
        ({"is_reasoning_complete": [False, True]}, ["length", "stop"], ["correct", "incorrect"]),
        ({"correctness_llama": [False, True]}, ["stop", "stop"], ["correct", "correct"]),
        ({"correctness_math_verify": None}, ["stop", "stop"], ["unverifiable", "unverifiable"]),
        ({"correctness_math_verify": [True]}, ["stop", "stop"], ["correct", "unverifiable"]),
        (
            {"generations": [REPLY, "<think>\nand so on"], "is_reasoning_complete": None},
            ["stop", "length"], ["correct", "incorrect"],
        ),
        ({"generations": [REPLY, None]}, ["stop"], ["correct"]),
    ],
)  # fmt: skip
def test_the_ends_and_labels_of_openr1(
    tmp_path: Path, changed: dict[str, Any], ends: list[str], labels: list[str]
) -> None:
    run = imported(tmp_path, [{**OPEN_R1, **changed}])
    assert [trace.finish_reason for trace in traces_of(run)] == ends
    assert [label.outcome for label in read_records(run.folder / LABELS, Verdict)] == labels


def test_an_imported_set_is_verified_and_filtered_like_a_sampled_one(tmp_path: Path) -> None:
    wrong = {**OPEN_R1, "problem": "What is 1 + 1?", "answer": "2", "solution": "It is $2$."}
    run = imported(tmp_path, [OPEN_R1, wrong], license="cc-by-4.0")
    verify_stage(run, Clock(run, "verify"))
    assert [v.outcome for v in read_records(run.verdicts, Verdict)] == ["correct", "correct", "incorrect", "incorrect"]
    counts = filter_stage(run, Clock(run, "filter"))
    assert counts["dropped"] == {"incorrect": 2}
    card = (run.dataset / "README.md").read_text(encoding="utf-8")
    assert "not sampled by r1distill" in card
    assert "set.jsonl" in card
    assert str(tmp_path) not in card
    assert "license: cc-by-4.0\n" in card


def test_the_labels_of_the_set_can_be_the_verdicts(tmp_path: Path) -> None:
    run = imported(tmp_path, [OPEN_R1], verdicts="theirs")
    assert take_labels(run) == {"correct": 1, "incorrect": 1}
    assert filter_stage(run, Clock(run, "filter"))["kept"] == 2
    assert pq.read_table(run.dataset / "train.parquet")["outcome"].to_pylist() == ["correct", "incorrect"]


def chats(order: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {problem}?"},
                {"role": "assistant", "content": f"<think>\n{row}\n</think>\n\\boxed{{{problem}}}"},
            ]
        }
        for row, problem in enumerate(order)
    ]


@pytest.mark.parametrize("at_once", [1 << 30, 1])
@pytest.mark.parametrize("order", [[0, 0, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0], list(range(40)) * 3, [5, 4, 5, 3, 4, 5]])
def test_traces_of_one_problem_come_together_however_the_set_is_ordered(
    tmp_path: Path, order: list[int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_traces, "BYTES_AT_ONCE", at_once)
    monkeypatch.setattr(public_traces, "MOST_PARTS", 3)
    run = imported(tmp_path, chats(order))
    problems = [problem.problem for problem in read_records(run.problems, Problem)]
    first = list(dict.fromkeys(order))
    assert problems == [f"What is {problem}?" for problem in first]
    expected = [
        (sample, f"<think>\n{row}\n</think>\n\\boxed{{{problem}}}")
        for problem in first
        for sample, row in enumerate(row for row, each in enumerate(order) if each == problem)
    ]
    traces = traces_of(run)
    assert [(trace.sample, trace.text) for trace in traces] == expected
    labels = list(read_records(run.folder / LABELS, Verdict))
    assert [(v.problem_id, v.sample) for v in labels] == [(t.problem_id, t.sample) for t in traces]


def test_a_limit_is_of_rows_and_a_second_import_replaces_the_first(tmp_path: Path) -> None:
    run = imported(tmp_path, chats(list(range(9))))
    pq.write_table(pq.read_table(run.traces / "00000.parquet"), run.traces / "00001.parquet")
    run = imported(tmp_path, chats(list(range(9))), limit=4)
    assert len(traces_of(run)) == 4
    about = read_json(run.folder / "imported.json")
    assert (about["traces"], about["problems"], about["format"]) == (4, 4, "chat")


def test_a_set_that_cannot_be_read_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    run = imported(tmp_path, chats([1, 2]))
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    faults: list[tuple[list[Any], dict[str, Any], str]] = [
        ([*chats([1]), {"question": "?"}], {}, r"set\.jsonl:2: not in the format chat: it has question"),
        ([{"question": "?"}], {}, r"set\.jsonl:1: no traces in its columns \(question\)"),
        ([OPEN_R1], {"format": "openthoughts-metadata"}, "not in the format openthoughts-metadata"),
        ([], {}, "no traces in it"),
        ([{"messages": [{"role": "assistant", "content": "?"}]}], {}, "no problem text"),
    ]
    for rows, options, words in faults:
        with pytest.raises(UserError, match=words):
            imported(tmp_path, rows, **options)
        assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match=r"traces\.path = nowhere\.jsonl: no such file"):
        import_traces(Traces(path="nowhere.jsonl"), run)


def test_the_parquet_files_of_a_folder_are_read_as_one_set(tmp_path: Path) -> None:
    folder = tmp_path / "OpenR1-Math-220k" / "data"
    folder.mkdir(parents=True)
    for part in range(3):
        rows = [{**OPEN_R1, "problem": f"{ASK} ({part}, {n})", "correctness_llama": [None, None]} for n in range(4)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"train-0000{part}-of-00003.parquet")
    run = small_run(tmp_path)
    counts = import_traces(Traces(path=str(tmp_path / "OpenR1-Math-220k")), run)
    assert (counts["problems"], counts["samples"]) == (12, 24)
    assert {trace.model for trace in traces_of(run)} == {"deepseek-ai/DeepSeek-R1"}
    assert {problem.license for problem in read_records(run.problems, Problem)} == {"apache-2.0"}


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_reply_is_closed_exactly_when_its_thinking_is_and_something_follows(thinking: str, answer: str) -> None:
    if "<think>" in thinking + answer or "</think>" in thinking + answer:
        return
    assert is_closed(f"<think>{thinking}</think>{answer}") == bool(answer.strip())
    assert not is_closed(f"<think>{thinking}")
    assert is_closed(answer) == bool(answer.strip())


def test_a_row_without_a_reply_is_counted_and_left_out(tmp_path: Path) -> None:
    assert replies_of({**OPEN_R1, "generations": []}, "openr1-math", "here") == []
    empty = {**MIXTURE, "messages": MIXTURE["messages"][:1]}
    run = small_run(tmp_path)
    path = jsonl(tmp_path / "set.jsonl", [MIXTURE, empty])
    assert import_traces(Traces(path=str(path)), run)["without_reply"] == 1
