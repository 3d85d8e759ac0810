"""The journal against real kills, damaged files and several writers."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1distill.errors import UserError
from r1distill.generate.journal import Journal
from r1distill.records import Trace

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys, time
from pathlib import Path
from r1distill.generate.journal import Journal
from r1distill.records import Trace

folder, writer, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with Journal(folder) as journal:
    for sample in range(100_000):
        text = f"{writer} {sample} " + "x" * (sample * 7919 % 60_000)
        journal.append(Trace(f"problem-{writer}", sample, "m", "sha", 1, text, None, text, "stop"), "correct")
        print(sample, flush=True)
        time.sleep(pause_s)
"""
FAILED = Trace("p", 0, "m", "sha", 7, "", None, "", "error", error="the server said no")
FINISHED = Trace("p", 0, "m", "sha", 7, "<think>\na\n</think>\n\nb", "a", "b", "stop")


def start_writer(folder: Path, name: str, pause_s: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(pause_s)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def other_writer(folder: Path, name: str, *entries: tuple[Trace, str | None]) -> None:
    """What another process would leave: a file of its own, in the same form."""
    aside = folder / f"{name}-aside"
    with Journal(aside) as journal:
        for trace, outcome in entries:
            journal.append(trace, outcome)  # type: ignore[arg-type]
        path = journal.path
    path.rename(folder / f"{name}.sqlite")


def traces_of(folder: Path, wanted: dict[str, str]) -> list[Trace]:
    with Journal(folder) as journal:
        return list(journal.traces(wanted))


def test_every_acknowledged_sample_is_there_after_kill_9(tmp_path):
    chance = random.Random(5)
    acknowledged = {}
    for round_ in range(3):
        writers = {name: start_writer(tmp_path, name) for name in (f"{round_}a", f"{round_}b")}
        for writer in writers.values():
            assert writer.stdout
            writer.stdout.readline()  # it has begun
        time.sleep(chance.uniform(0.0, 0.3))
        for name, writer in writers.items():
            os.kill(writer.pid, signal.SIGKILL)
            printed, _ = writer.communicate()
            acknowledged[name] = max([0, *map(int, printed.split("\n")[:-1])])
            assert writer.returncode == -signal.SIGKILL
    with Journal(tmp_path) as journal:
        finished = journal.finished()
        for name, last in acknowledged.items():
            assert all((f"problem-{name}", sample, "sha") in finished for sample in range(last + 1))
            # at most the one that was being acknowledged is there besides
            assert sum(key[0] == f"problem-{name}" for key in finished) <= last + 2
        for trace in journal.traces({f"problem-{name}": "sha" for name in acknowledged}):
            start = f"{trace.problem_id.removeprefix('problem-')} {trace.sample} "
            assert trace.text == start + "x" * (trace.sample * 7919 % 60_000)
    assert sum(acknowledged.values()) > 20


def test_a_transaction_cut_off_halfway_is_rolled_back_by_the_next_reader(tmp_path):
    """What a killed writer leaves: a rollback journal beside a file that is already half overwritten."""
    dying = """
import os, random, signal, sys
from pathlib import Path
from r1distill.generate.journal import Entry, Journal
from r1distill.records import Trace
journal = Journal(Path(sys.argv[1]))
journal.connection.execute("PRAGMA cache_size = 1")  # writes pages into the file before the commit
journal.connection.execute("BEGIN")
for sample in range(200):
    text = random.randbytes(10_000).hex()  # the texts are compressed
    journal.insert(Entry(Trace("p", sample, "m", "sha", 1, text, None, text, "stop")))
os.kill(os.getpid(), signal.SIGKILL)
"""
    other_writer(tmp_path, "a", (FINISHED, "correct"))
    subprocess.run([sys.executable, "-c", dying, str(tmp_path)], cwd=ROOT, check=False)
    assert any(path.stat().st_size for path in tmp_path.glob("*.sqlite-journal"))
    with Journal(tmp_path) as journal:
        assert journal.finished() == {("p", 0, "sha"): "correct"}


def test_a_writer_killed_before_it_made_its_table_does_no_harm(tmp_path):
    (tmp_path / "killed-1.sqlite").touch()
    other_writer(tmp_path, "a", (FINISHED, "correct"))
    assert traces_of(tmp_path, {"p": "sha"}) == [FINISHED]


def test_the_files_of_several_writers_are_read_together(tmp_path):
    others = [replace(FINISHED, sample=sample) for sample in range(4)]
    other_writer(tmp_path, "a", (others[3], "correct"), (others[0], "incorrect"))
    other_writer(tmp_path, "b", (others[2], None))
    with Journal(tmp_path) as journal:
        journal.append(others[1], "timeout")
        assert journal.finished() == {
            ("p", 0, "sha"): "incorrect",
            ("p", 1, "sha"): "timeout",
            ("p", 2, "sha"): None,
            ("p", 3, "sha"): "correct",
        }
        assert list(journal.traces({"p": "sha"})) == others


def test_a_writer_at_work_can_be_read(tmp_path):
    writer = start_writer(tmp_path, "w", pause_s=0.05)
    try:
        assert writer.stdout
        for _ in range(5):
            last = int(writer.stdout.readline())
            with Journal(tmp_path) as journal:
                assert ("problem-w", last, "sha") in journal.finished()
    finally:
        writer.kill()
        writer.communicate()


def test_a_failed_sample_is_not_finished_but_is_among_the_traces(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append(FAILED, None)
        assert journal.finished() == {}
        assert list(journal.traces({"p": "sha"})) == [FAILED]


def test_a_finished_sample_takes_the_place_of_a_failed_one(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append(FAILED, None)
        journal.append(FINISHED, "correct")
        assert journal.finished() == {("p", 0, "sha"): "correct"}
        assert list(journal.traces({"p": "sha"})) == [FINISHED]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_finished_sample_takes_the_place_of_another_writers_failed_one(tmp_path, names):
    other_writer(tmp_path, names[0], (FAILED, None))
    other_writer(tmp_path, names[1], (FINISHED, "correct"))
    assert traces_of(tmp_path, {"p": "sha"}) == [FINISHED]


def test_of_a_sample_that_two_writers_have_trace_and_outcome_are_of_the_same_writer(tmp_path):
    other_writer(tmp_path, "a", (replace(FINISHED, text="first"), "correct"))
    other_writer(tmp_path, "b", (replace(FINISHED, text="second"), "incorrect"))
    with Journal(tmp_path) as journal:
        assert journal.finished() == {("p", 0, "sha"): "correct"}
        assert [trace.text for trace in journal.traces({"p": "sha"})] == ["first"]


def test_traces_come_in_the_wanted_order_and_then_by_sample(tmp_path):
    with Journal(tmp_path) as journal:
        for sample in (10, 2, 0):
            for problem in ("c", "a", "b"):
                journal.append(replace(FINISHED, problem_id=problem, sample=sample), None)
        order = [(trace.problem_id, trace.sample) for trace in journal.traces({"b": "sha", "x": "sha", "a": "sha"})]
    assert order == [("b", 0), ("b", 2), ("b", 10), ("a", 0), ("a", 2), ("a", 10)]


def test_another_request_sha_is_another_sample(tmp_path):
    edited = replace(FINISHED, request_sha="edited", text="new")
    with Journal(tmp_path) as journal:
        journal.append(FINISHED, "correct")
        journal.append(edited, "incorrect")
        assert journal.finished() == {("p", 0, "sha"): "correct", ("p", 0, "edited"): "incorrect"}
        assert list(journal.traces({"p": "edited"})) == [edited]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # a server's reply has none of these left
NUMBER = st.floats(allow_nan=False)
TRACES = st.builds(
    Trace,
    problem_id=TEXT,
    sample=st.integers(0, 2**31),
    model=TEXT,
    request_sha=TEXT,
    seed=st.integers(0, 2**31 - 1),
    text=TEXT,
    thinking=st.none() | TEXT,
    answer=TEXT,
    finish_reason=st.sampled_from(["stop", "length", "repetition", "error"]),
    token_ids=st.none() | st.lists(st.integers(0, 2**31 - 1)),
    n_prompt_tokens=st.integers(0, 2**40),
    n_tokens=st.integers(0, 2**40),
    logprobs=st.none() | st.integers(0, 1000),
    mean_logprob=st.none() | NUMBER,
    mean_entropy_nats=st.none() | NUMBER,
    mean_entropy_upper_nats=st.none() | NUMBER,
    p95_entropy_nats=st.none() | NUMBER,
    high_entropy_share=st.none() | NUMBER,
    thinking_signals=st.none() | st.dictionaries(TEXT, st.none() | NUMBER),
    answer_signals=st.none() | st.dictionaries(TEXT, st.none() | NUMBER),
    continued_from=st.none() | st.integers(0, 2**31),
    seconds=NUMBER,
    error=st.none() | TEXT,
)
WHOLE = Trace(
    "鸡兔同笼", 3, "模型/m", "sha", 2**31 - 1, "<think>\n\x00 π ≠ 3\n</think>\n\n\\boxed{🙂}", "π ≠ 3", "\\boxed{🙂}", "length",
    [1, 2], 3, 4, 20, -0.5, 0.1, 0.2, 0.3, 0.4, {"a": 0.5}, {"b": None}, 2, 1.5, "e\u2028\nf",
)  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(st.lists(TRACES, min_size=1, max_size=3, unique_by=lambda trace: (trace.problem_id, trace.sample)))
def test_every_field_of_a_trace_comes_back_as_it_was(traces):
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
        for trace in traces:
            journal.append(trace, None)
        for trace in traces:
            assert trace in list(journal.traces({trace.problem_id: trace.request_sha}))


def test_a_trace_with_every_field_set_comes_back_as_it_was(tmp_path):
    assert all(getattr(WHOLE, field.name) not in (None, field.default) for field in fields(Trace))
    with Journal(tmp_path) as journal:
        journal.append(WHOLE, "correct")
    assert traces_of(tmp_path, {WHOLE.problem_id: "sha"}) == [WHOLE]


def test_a_file_that_is_no_journal_gives_a_user_error_that_names_it(tmp_path):
    path = tmp_path / "broken-1.sqlite"
    path.write_bytes(b"this is not a database, however long one looks at it" * 100)
    with Journal(tmp_path) as journal:
        with pytest.raises(UserError, match=r"broken-1\.sqlite: not a journal .*move it away"):
            journal.finished()
        with pytest.raises(UserError, match=r"broken-1\.sqlite"):
            list(journal.traces({"p": "sha"}))


def test_damage_within_a_file_gives_a_user_error_that_names_it(tmp_path):
    samples = [(replace(FINISHED, sample=sample, text=random.randbytes(3000).hex()), None) for sample in range(50)]
    other_writer(tmp_path, "damaged", *samples)
    path = tmp_path / "damaged.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with Journal(tmp_path) as journal:
        with pytest.raises(UserError, match=r"damaged\.sqlite: not a journal"):
            journal.finished()
        with pytest.raises(UserError, match=r"damaged\.sqlite: not a journal"):
            list(journal.traces({"p": "sha"}))


def test_a_journal_that_cannot_be_written_to_gives_a_user_error(tmp_path):
    with Journal(tmp_path) as journal:
        pages = journal.connection.execute("PRAGMA page_count").fetchone()[0]
        journal.connection.execute(f"PRAGMA max_page_count = {pages}")  # as if the disk were full
        with pytest.raises(UserError, match=r"\.sqlite: cannot be written \(database or disk is full\)"):
            journal.append(replace(FINISHED, text=random.randbytes(100_000).hex()), None)
        journal.append(FINISHED, "correct")
        assert journal.finished() == {("p", 0, "sha"): "correct"}


def test_no_connection_stays_open(tmp_path):
    def open_files() -> int:
        return sum(
            str(tmp_path) in os.readlink(f"/proc/self/fd/{name}")
            for name in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{name}")
        )

    other_writer(tmp_path, "a", (FINISHED, "correct"))
    with Journal(tmp_path) as journal:
        journal.finished()
        unfinished = journal.traces({"p": "sha"})
        assert next(unfinished) == FINISHED
        del unfinished
        (tmp_path / "z-1.sqlite").write_bytes(b"no database" * 100)
        with pytest.raises(UserError):
            journal.finished()
        assert open_files() == 1
    assert open_files() == 0


def test_finding_the_finished_samples_does_not_read_their_texts(tmp_path):
    """A hundred gigabytes of long traces have to be listed in minutes: pages of text are skipped."""
    with Journal(tmp_path) as journal:
        for sample in range(40):
            journal.append(replace(FINISHED, sample=sample, text=random.randbytes(250_000).hex()), None)
        started = time.monotonic()
        assert len(journal.finished()) == 40
        listing = time.monotonic() - started
        started = time.monotonic()
        assert len(list(journal.traces({"p": "sha"}))) == 40
        reading = time.monotonic() - started
    assert listing < reading / 2


def test_two_processes_of_one_name_do_not_destroy_each_others_samples(tmp_path):
    """The same host name and process id, as containers have: both write into one file."""
    with Journal(tmp_path) as one, Journal(tmp_path) as two:
        assert one.path == two.path
        for sample in range(0, 10, 2):
            one.append(replace(FINISHED, sample=sample), None)
            two.append(replace(FINISHED, sample=sample + 1), None)
        assert len(one.finished()) == 10
    with closing(sqlite3.connect(one.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
