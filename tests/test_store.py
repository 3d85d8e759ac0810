"""Files of a run: what is written is read again, and a file is there in whole or as it was before."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import ROOT

from r1distill import store
from r1distill.errors import UserError
from r1distill.records import Decision, FinishReason, Kind, Outcome, Problem, Trace, Verdict, content_id
from r1distill.store import read_json, read_records, replacing, replacing_folder, write_json, write_records, write_text

texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
tables = st.dictionaries(texts, json_values, max_size=3)
counts = st.integers(0, 2**62)
problems = st.builds(
    Problem, texts, st.sampled_from(get_args(Kind)), st.none() | texts, st.none() | tables,
    st.none() | st.lists(texts, max_size=4), texts, texts, texts, tables,
)  # fmt: skip
traces = st.builds(
    Trace, texts, counts, texts, texts, counts, texts, st.none() | texts, texts, st.sampled_from(get_args(FinishReason)),
    st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=5), counts, counts, st.none() | counts,
    *[st.none() | numbers] * 4, numbers, st.none() | texts,
)  # fmt: skip
verdicts = st.builds(Verdict, texts, counts, st.sampled_from(get_args(Outcome)), st.none() | texts, texts, texts)
decisions = st.builds(Decision, texts, counts, st.booleans(), texts)
ROUND_TRIP = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ROUND_TRIP
@given(data=st.data())
@pytest.mark.parametrize(
    ("record_type", "records"),
    [(Problem, problems), (Trace, traces), (Verdict, verdicts), (Decision, decisions)],
    ids=["Problem", "Trace", "Verdict", "Decision"],
)
def test_records_come_back_as_they_were_written(
    record_type: Any, records: Any, data: st.DataObject, tmp_path: Path
) -> None:
    written = data.draw(st.lists(records, max_size=5))
    path = tmp_path / "records.parquet"
    assert write_records(path, record_type, written) == len(written)
    assert list(read_records(path, record_type)) == written
    assert os.listdir(tmp_path) == ["records.parquet"]


def test_more_than_a_row_group_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_A_GROUP", 3)
    written = [Decision(str(n), n, n % 2 == 0, "kept") for n in range(10)]
    write_records(tmp_path / "d.parquet", Decision, iter(written))
    assert pq.read_metadata(tmp_path / "d.parquet").num_row_groups == 4
    assert list(read_records(tmp_path / "d.parquet", Decision)) == written


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("00001", "00000", "00002"):
        write_records(tmp_path / f"{name}.parquet", Decision, [Decision(name, 0, True, "kept")])
    assert [record.problem_id for record in read_records(tmp_path, Decision)] == ["00000", "00001", "00002"]


def test_a_column_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"problem_id": ["a"], "sample": [0], "keep": [True], "reason": ["kept"], "new": [1]}), path)
    assert list(read_records(path, Decision)) == [Decision("a", 0, True, "kept")]


def test_a_column_that_an_earlier_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "traces.parquet"
    trace = Trace("p", 0, "m", "sha", 1, "4", None, "4", "stop", n_tokens=7, thinking_signals={"mean_logprob": -1.0})
    write_records(path, Trace, [trace])
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["thinking_signals", "seconds"]), path)
    assert list(read_records(path, Trace)) == [dataclasses.replace(trace, thinking_signals=None)]
    pq.write_table(table.drop_columns(["text", "seconds"]), path)
    with pytest.raises(UserError, match="it has no text, which every Trace has"):
        list(read_records(path, Trace))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not really PAR1"])
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "verdicts.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"verdicts\.parquet: cannot be read: .*run again") as refused:
        list(read_records(path, Verdict))
    assert "\n" not in str(refused.value)


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": "ü"})

    def fails() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fails()
    assert read_json(path) == {"old": "ü"}
    assert os.listdir(tmp_path) == ["file.json"]


def test_an_exception_while_records_are_made_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    old = [Decision("a", 0, True, "kept")]
    write_records(path, Decision, old)

    def fails() -> Any:
        yield Decision("b", 0, True, "kept")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_records(path, Decision, fails())
    assert list(read_records(path, Decision)) == old
    assert os.listdir(tmp_path) == ["d.parquet"]


def test_kill_in_the_middle_leaves_the_old_file_and_nothing_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    old = [Decision("a", 0, True, "kept")]
    write_records(path, Decision, old)
    code = f"""
        import time
        from pathlib import Path
        from r1distill import store
        from r1distill.records import Decision
        store.ROWS_A_GROUP = 1
        def endless():
            for n in range(10**9):
                yield Decision(str(n), n, True, "kept")
                if n == 3:
                    print("half", flush=True)
                    time.sleep(60)
        store.write_records(Path({str(path)!r}), Decision, endless())
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    assert len(os.listdir(tmp_path)) == 2  # the new one is being written beside the old
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    assert list(read_records(path, Decision)) == old
    assert list(read_records(tmp_path, Decision)) == old  # the half file is no Parquet file of the folder


def test_a_file_has_the_rights_that_the_user_wants(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            write_text(tmp_path / "file", "x")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"), replacing(place):
            pytest.fail("the work began")
    assert os.listdir(tmp_path) == ["file"]


def test_content_ids_do_not_depend_on_the_process_or_the_order_of_keys() -> None:
    parts = ["What is 鸡?", "code", None, {"b": [1], "a": {"d": 1, "c": None}}, ["x"]]
    code = f"from r1distill.records import content_id; print(content_id(*{parts!r}))"
    seeds = ("1", "2")
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in seeds
    }  # fmt: skip
    other_order = [*parts[:3], {"a": {"c": None, "d": 1}, "b": [1]}, ["x"]]
    assert found == {content_id(*other_order)}
    assert len(content_id("x")) == 16


KILLED = """
import os, signal, sys
from pathlib import Path
from r1distill import store
folder, moment = Path(sys.argv[1]), sys.argv[2]
def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "between":
    rename, seen = Path.rename, []
    def rename_once(self, target):
        seen.append(self)
        return rename(self, target) if len(seen) == 1 else kill()
    Path.rename = rename_once
if moment == "deleting":
    store.shutil.rmtree = kill
with store.replacing_folder(folder) as temporary:
    (temporary / "weights").write_text("new")
    if moment == "writing":
        kill()
"""


@pytest.mark.parametrize(("moment", "left"), [("writing", "old"), ("between", "old"), ("deleting", "new")])
def test_what_a_killed_process_leaves_of_a_folder_is_taken_up_by_the_next(
    tmp_path: Path, moment: str, left: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    (tmp_path / ".model.of-somebody-else").mkdir()
    found = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False)
    assert found.returncode == -signal.SIGKILL
    with pytest.raises(KeyError), replacing_folder(folder):
        raise KeyError  # and what was there, or was put there, stays
    assert (folder / "weights").read_text() == left
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.of-somebody-else", "model"]
