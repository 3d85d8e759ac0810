"""show: the traces of a run and its funnel at a terminal, by id, by reason, or drawn; texts of models cannot command it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import r1distill, small_run

from r1distill.cli import app
from r1distill.console import printable
from r1distill.errors import UserError
from r1distill.filter.stage import filter_stage
from r1distill.records import Decision, Outcome, Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.show.choose import Wish, choose
from r1distill.show.rows import n_rows, places_where, rows_at
from r1distill.show.trace import HEAD, TAIL, folded, read
from r1distill.store import write_json, write_records

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]not markup[/red] :smile: \u202egnitirw\x9b31m\rback\x08 \ud800 end"
LONG = "\n".join(f"step {n}: {n} + 1 = {n + 1}" for n in range(400))


def a_run(folder: Path, thinking: str = LONG, *, filtered: bool = True) -> Run:
    """Six problems of four samples, whose right and wrong ones alternate by problem."""
    run = small_run(folder, filter={"drop_duplicates": False})  # the replies are all the same words
    problems = [Problem(f"What is {n} + 1?", answer=str(n + 1), source=f"set {n % 2}", id=f"p{n}") for n in range(6)]
    traces, verdicts = [], []
    for problem in problems:
        for sample in range(4):
            answer = f"\\boxed{{{problem.id}-{sample}}}"
            text = f"<think>\n{thinking}\n</think>\n\n{answer}"
            traces.append(
                Trace(
                    problem.id, sample, "m", "sha", 0, text, thinking, answer, "stop", n_tokens=1234, token_ids=[1, 2]
                )
            )
            outcome: Outcome = "correct" if int(problem.id[1]) % 4 <= sample else "incorrect"
            verdicts.append(Verdict(problem.id, sample, outcome, "42", "because", "math"))
    write_records(run.problems, Problem, problems)
    half = len(traces) // 2
    write_records(run.traces / "00000.parquet", Trace, traces[:half])
    write_records(run.traces / "00001.parquet", Trace, traces[half:])
    write_records(run.verdicts, Verdict, verdicts)
    if filtered:
        filter_stage(run, Clock(run, "filter"))
    return run


Shown = Callable[..., str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What the command prints of a run, with some arguments; in this process, since a start takes a second."""
    monkeypatch.setenv("COLUMNS", "200")

    def output(run: Run, *arguments: str) -> str:
        app(["show", str(run.folder), *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return output


def ids(output: str) -> list[str]:
    return re.findall(r"\\boxed\{(p\d-\d)\}", output)


def test_a_trace_is_shown_by_its_id_with_all_that_is_known_of_it(tmp_path: Path, shown: Shown) -> None:
    run = a_run(tmp_path)
    output = shown(run, "--id", "p5/2")
    assert ids(output) == ["p5-2"]
    for words in ("p5/2 · math · set 1 · m", "What is 5 + 1?", "correct · 42 · because · math", "kept", "1,234"):
        assert words in output
    assert "step 0: 0 + 1 = 1" in output
    assert "step 399: 399 + 1 = 400" in output
    assert "step 200" not in output
    assert re.search(r"… [\d,]+ characters, shown by --full …", output)
    assert "step 200" in shown(run, "--id", "p5/2", "--full")
    assert ids(shown(run, "--id", "p5")) == ["p5-0", "p5-1", "p5-2", "p5-3"]
    assert ids(shown(run, "--id", "p5", "-n", "2")) == ["p5-0", "p5-1"]


def test_traces_are_shown_by_reason_and_drawn_by_seed(tmp_path: Path, shown: Shown) -> None:
    run = a_run(tmp_path)
    output = shown(run, "--dropped", "incorrect", "-n", "100")
    assert ids(output) == ["p1-0", "p2-0", "p2-1", "p3-0", "p3-1", "p3-2", "p5-0"]
    assert output.count("dropped: incorrect") == 7
    assert "7 of 7 traces" in output
    assert ids(shown(run, "--kept")) == ["p0-0"]
    drawn = shown(run, "--kept", "--random", "--seed", "3", "-n", "5")
    assert len(ids(drawn)) == 5
    assert "5 of 17 traces, drawn with --seed 3; -n NUMBER shows more" in drawn
    assert not set(ids(drawn)) & set(ids(output))
    assert drawn == shown(run, "--kept", "--random", "--seed", "3", "-n", "5")
    seed = re.search(r"drawn with --seed (\d+)", any_one := shown(run, "--random"))
    assert seed
    assert shown(run, "--random", "--seed", seed[1]) == any_one


def test_without_options_the_summary_is_shown(tmp_path: Path, shown: Shown) -> None:
    run = a_run(tmp_path)
    write_json(run.folder / "recipe.json", {"recipe": run.recipe.model_dump()})
    write_json(run.record_path("filter"), {"status": "done", "seconds": 1.0})
    assert "funnel: 24 sampled → 0 correct → 17 kept (dropped: 7 incorrect)" in shown(run)


def test_the_funnel_is_shown_as_tables(tmp_path: Path, shown: Shown) -> None:
    run = a_run(tmp_path)
    output = shown(run, "--funnel")
    rows = [re.split(r"\s*│\s*", line.strip("│┃ ")) for line in output.splitlines()]
    assert next(row for row in rows if row[0] == "sampled")[:7] == ["sampled", "24", "100.0%", "4", "4", "8", "8"]
    assert next(row for row in rows if row[0] == "− incorrect")[:3] == ["− incorrect", "7", "29.2%"]
    assert "traces by source" in output
    assert "not measured of 17 traces, which are not dropped for it: high_entropy" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--id", "nobody"], ["no trace of a problem nobody", "such as p0"]),
        (["--id", "p1/9"], ["problem p1 has no sample 9; it has 0, 1, 2, 3"]),
        (["--dropped", "incorect"], ["did you mean incorrect?", "kept (17), incorrect (7)"]),
        (["--kept", "--id", "p1"], ["one of --id, --dropped and --kept"]),
        (["--seed", "1"], ["--seed needs --random"]),
        (["--full"], ["need --id"]),
        (["--funnel", "--kept"], ["no option for traces"]),
    ],
)
def test_what_cannot_be_shown_is_said_with_what_can(
    tmp_path: Path, shown: Shown, arguments: list[str], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        shown(a_run(tmp_path), *arguments)
    for word in words:
        assert word in str(error.value)


def test_a_run_that_is_not_filtered_or_not_there_is_told(tmp_path: Path, shown: Shown) -> None:
    run = a_run(tmp_path, filtered=False)
    assert "verdict" in shown(run, "--id", "p0/0")
    assert "decision" not in shown(run, "--id", "p0/0")
    with pytest.raises(UserError, match=r"no decisions\.parquet; run `r1distill filter`"):
        choose(run.folder, Wish(kept=True))
    with pytest.raises(UserError, match="run `r1distill generate` first"):
        choose(tmp_path / "nothing", Wish())


def test_decisions_of_another_run_are_not_shown_beside_a_trace(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    decisions = [Decision("other", n, True, "kept") for n in range(24)]
    write_records(run.decisions, Decision, decisions)
    (found,) = read(run.folder, [3])
    assert (found.decision, found.verdict["sample"]) == ({}, 3)


def test_the_texts_of_models_cannot_command_the_terminal(tmp_path: Path) -> None:
    run = a_run(tmp_path, thinking=HOSTILE.replace("\ud800", ""))
    result = r1distill("show", run.folder, "--id", "p1/1", FORCE_COLOR="1", TERM="xterm-256color")
    assert result.returncode == 0, result.stderr
    plain = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)  # the colours are ours
    assert "[red]not markup[/red] :smile:" in plain
    assert not [each for each in plain if not (each.isprintable() or each == "\n")]
    assert "\x1b[2J" not in result.stdout


@given(st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\x1b\x9b\r\n\t\x08\u202e[]:")))
def test_nothing_but_what_can_be_printed_is_printed(text: str) -> None:
    one_line, several = printable(text).plain, printable(text, lines=True).plain
    assert len(one_line) == len(text)
    assert one_line.isprintable()
    assert several.replace("\n", "").isprintable()
    assert printable(text).spans == []
    for each in text:
        if each.isprintable():
            assert each in one_line
            assert each in several


@given(st.text(max_size=3000))
def test_a_folded_text_has_its_head_and_tail_or_is_whole(text: str) -> None:
    found = folded(text)
    assert found.startswith(text[:HEAD])
    assert found.endswith(text[-TAIL:] if text else "")
    assert (found == text) == (len(text) <= HEAD + TAIL)


# ---------------------------------------------------------------- rows by place


def two_files(folder: Path) -> Path:
    """Of thirty rows each, in row groups of seven."""
    for name, start in (("0.parquet", 0), ("1.parquet", 30)):
        numbers = list(range(start, start + 30))
        table = pa.table({"id": numbers, "text": [f"text {n}" * 50 for n in numbers], "more": numbers})
        pq.write_table(table, folder / name, row_group_size=7, compression="none", use_dictionary=False)
    return folder


@given(st.sets(st.integers(0, 65), max_size=12))
def test_rows_are_found_by_their_place(tmp_path_factory: Any, places: set[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "rows"
    if not folder.exists():
        folder.mkdir()
        two_files(folder)
    found = rows_at(folder, sorted(places), without=("more",))
    assert found == {place: {"id": place, "text": f"text {place}" * 50} for place in places if place < 60}
    assert places_where(folder, "id", lambda value: value in places) == sorted(found)
    assert n_rows(folder) == 60


def test_only_the_row_groups_that_are_needed_are_read(tmp_path: Path) -> None:
    files = two_files(tmp_path)
    path = files / "0.parquet"
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in (0, 1, 3, 4):  # all but the one of rows 14 to 20
        column = metadata.row_group(group).column(1)
        start = column.data_page_offset
        data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    assert rows_at(files, [14, 20, 31])[20]["text"] == "text 20" * 50
    assert places_where(files, "id", lambda value: value == 5) == [5]
    with pytest.raises(UserError, match=r"0\.parquet: cannot be read"):
        rows_at(files, [5])
