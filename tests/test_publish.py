"""Publishing: all of it, or nothing; to a folder, and to the Hub over real HTTP."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filtered_run import GOOD, filtered, many, problem, trace
from hub_server import HubServer, Repository
from small_run import ROOT, assert_one_error_line, r1distill

from r1distill.errors import UserError
from r1distill.filter import targets
from r1distill.filter.publish import publish, size
from r1distill.filter.targets import target_of
from r1distill.filter.whole import safetensors_size
from r1distill.run import Run
from r1distill.store import write_json

TOKEN = "hf_" + "t" * 34


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    problems, traces = many(30)
    return filtered(tmp_path, problems, traces, filter={"validation_fraction": 0.3})


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def student(run: Run) -> Path:
    """A student with weights of two numbers, as the stage train leaves it."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    run.student.mkdir(parents=True)
    (run.student / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "training_log.json"):
        write_json(run.student / name, {})
    (run.student / "README.md").write_text("---\nlicense: mit\n---\n")
    (run.student / "training_args.bin").write_bytes(b"a pickle")
    (run.student / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (run.student / "checkpoints" / "checkpoint-1" / "optimizer.pt").write_bytes(b"")
    write_json(run.record_path("train"), {"stage": "train", "status": "done", "seconds": 1.0, "counts": {}})
    return run.student


# ---------------------------------------------------------------- a folder


def test_a_folder_gets_the_dataset_and_nothing_else(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.dataset / "notes.txt").write_text("mine")
    publish(run.folder, f"file://{tmp_path}/out", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert "dry run: nothing was written" in capsys.readouterr().out
    publish(run.folder, f"file://{tmp_path}/out")
    expected = contents(run.dataset)
    del expected["notes.txt"]
    assert contents(tmp_path / "out") == expected
    said = capsys.readouterr().out
    assert "left out: notes.txt" in said
    total = sum(map(len, expected.values()))
    assert f"3 files, {size(total)} → {tmp_path}/out" in said
    assert not list(run.folder.glob(".publish*"))


def test_another_publication_takes_its_place_and_anything_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run.folder, str(out))
    publish(run.folder, str(out), format="sharegpt")
    assert sorted(contents(out)) == ["README.md", "dataset_info.json", "train.jsonl", "validation.jsonl"]
    publish(run.folder, str(out))
    assert contents(out) == contents(run.dataset)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex, which was not published there"):
        publish(run.folder, str(out))
    assert (out / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("where", ["dataset", "dataset/copy", ".", ".."])
def test_a_run_is_not_published_over_itself(run: Run, where: str) -> None:
    before = contents(run.folder)
    with pytest.raises(UserError, match="this is where it comes from"):
        publish(run.folder, str(run.folder / where))
    assert contents(run.folder) == before


def test_a_full_disk_leaves_the_folder_as_it_was(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    publish(run.folder, str(out), format="trl")
    before = contents(out)
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if source.name == "validation.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, target)

    monkeypatch.setattr(targets.shutil, "copyfile", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device; it is as it was"):
        publish(run.folder, str(out))
    assert contents(out) == before
    assert [path.name for path in tmp_path.glob(".out*")] == []


def test_a_killed_publication_leaves_the_folder_as_it_was(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(run.folder, str(out), format="trl")
    before = contents(out)
    killed = (
        "import os, shutil, signal, sys\n"
        "from r1distill.filter import publish, targets\n"
        "def kill(source, target): os.kill(os.getpid(), signal.SIGKILL)\n"
        "targets.shutil.copyfile = kill\n"
        "publish.publish(publish.Path(sys.argv[1]), sys.argv[2])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", killed, str(run.folder), str(out)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert contents(out) == before
    publish(run.folder, str(out))  # and it is no obstacle
    assert contents(out) == contents(run.dataset)


# ---------------------------------------------------------------- whole, and without secrets


def test_a_dataset_that_is_not_whole_is_not_published(run: Run, tmp_path: Path) -> None:
    train, card = run.dataset / "train.parquet", run.dataset / "README.md"
    table, data = pq.read_table(train), train.read_bytes()
    rows = table.to_pylist()
    rows[3]["messages"][1]["content"] += " "
    changed = pa.Table.from_pylist(rows, table.schema)
    text = card.read_text()
    faults: list[tuple[Any, str]] = [
        (lambda: pq.write_table(table.slice(1), train), r"59 rows, and funnel\.json says that 60 were kept"),
        (lambda: pq.write_table(changed, train), "row 3: its messages are not those that `sha256` is of"),
        (lambda: pq.write_table(table.drop_columns(["sha256"]), train), "no column sha256: an earlier version"),
        (lambda: train.write_bytes(data[:-20]), "not a file of a dataset"),
        (
            lambda: card.write_text(text.replace("path: validation.parquet", "path: other.parquet")),
            "does not name the files",
        ),
        (lambda: card.unlink(), "does not name the files"),
        (lambda: run.funnel.write_text('{"sampled": 60'), r"funnel\.json: not to be read"),
        (lambda: run.funnel.unlink(), r"funnel\.json: not to be read"),
        (lambda: run.record_path("filter").unlink(), "its stage filter is not done"),
    ]
    for fault, words in faults:
        train.write_bytes(data)
        card.write_text(text)
        fault()
        with pytest.raises(UserError, match=words):
            publish(run.folder, str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["journal", "journal.sqlite", ".env", ".env.local", "id_ed25519", "server.pem", "x.db-wal"]
)
def test_a_key_or_a_journal_beside_the_data_stops_it(run: Run, tmp_path: Path, name: str) -> None:
    (run.dataset / name).write_text("x")
    with pytest.raises(UserError, match=r"this is a key or a journal by its name; move it out"):
        publish(run.folder, str(tmp_path / "out"))


def test_a_key_in_a_text_stops_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = run.dataset / "README.md"
    text = card.read_text()
    for added, words in (
        (TOKEN, "a token of the Hub"),
        ("sk-" + "a1" * 20, "a key of an API"),
        ("http://me:password@host/v1", "a password in a URL"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
    ):
        card.write_text(text + added)
        with pytest.raises(UserError, match=f"has what looks like {words}") as refused:
            publish(run.folder, str(tmp_path / "out"))
        assert added not in str(refused.value)
    card.write_text(text + "correct horse battery")
    monkeypatch.setenv("MY_SERVER_KEY", "correct horse battery")
    with pytest.raises(UserError, match="has the value of the environment variable MY_SERVER_KEY in it"):
        publish(run.folder, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_key_in_a_trace_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = filtered(tmp_path, [problem("a")], [trace("a"), trace("a", 1, f"{GOOD} correct horse battery")])
    monkeypatch.setenv("OPENAI_API_KEY", "correct horse battery")
    with pytest.raises(
        UserError, match=r"train\.parquet: row 1: has the value of the environment variable OPENAI_API_KEY"
    ):
        publish(run.folder, str(tmp_path / "out"))


def test_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    shutil.move(run.dataset / "train.parquet", tmp_path / "elsewhere.parquet")
    (run.dataset / "train.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(UserError, match=r"train\.parquet: a link"):
        publish(run.folder, str(tmp_path / "out"))


def test_the_student_goes_without_its_checkpoints_and_pickles(run: Run, tmp_path: Path) -> None:
    folder = student(run)
    publish(run.folder, str(tmp_path / "out"), what="student")
    assert sorted(contents(tmp_path / "out")) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training_log.json",
    ]  # fmt: skip
    weights = folder / "model.safetensors"
    assert safetensors_size(weights) == weights.stat().st_size
    for fault in (weights.read_bytes()[:-1], b"", b"\xff" * 40):
        weights.write_bytes(fault)
        with pytest.raises(UserError, match=r"model\.safetensors: cut off, or not a file of weights"):
            publish(run.folder, str(tmp_path / "out"), what="student")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"w": "model-00002-of-00002.safetensors"}})
    with pytest.raises(UserError, match=r"no model-00002-of-00002\.safetensors"):
        publish(run.folder, str(tmp_path / "out"), what="student")
    write_json(folder / "model.safetensors.index.json", [])
    with pytest.raises(UserError, match="not an index of weights"):
        publish(run.folder, str(tmp_path / "out"), what="student")


# ---------------------------------------------------------------- which target


@pytest.mark.parametrize(
    ("to", "meant"),
    [
        ("org/name", "Repository(name='org/name')"), ("hf://datasets/org/name", "Repository(name='org/name')"),
        ("hf://org/name", "Repository(name='org/name')"), ("file:///a%20b/c", "/a b/c"),
        ("file://localhost/c", "/c"), ("/a/b", "/a/b"),
    ],
)  # fmt: skip
def test_targets(to: str, meant: str) -> None:
    assert (str if to.startswith(("/", "file")) else repr)(target_of(to, "dataset")) == meant


@pytest.mark.parametrize(
    "to", ["name", "runs/out", "a/b/c", "s3://bucket/name", "file://host/name", "file://name", "hf://name"]
)
def test_a_target_that_is_none_or_could_be_either_is_refused(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--to {to}: "):
        target_of(to, "dataset")


def test_options_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"what": "teacher"}, "--what teacher"),
        ({"format": "alpaca"}, "--format alpaca"),
        ({"format": "trl", "what": "student"}, "--format trl"),
        ({"private": True}, "--private and --revision are for the Hub"),
        ({"revision": "v1"}, "--private and --revision are for the Hub"),
    ]
    for options, words in refused:
        with pytest.raises(UserError, match=words):
            publish(run.folder, out, **options)
    with pytest.raises(UserError, match=r"no recipe\.json"):
        publish(tmp_path, out)


# ---------------------------------------------------------------- the Hub


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(TOKEN) as server:
        yield server


def command(hub: HubServer, run: Run, *arguments: str, token: str = TOKEN) -> Any:
    return r1distill(
        "publish", run.folder, "--to", "org/name", *arguments,
        HF_ENDPOINT=hub.url, HF_TOKEN=token, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_HOME=str(run.folder / "home"),
        HF_HUB_DISABLE_TELEMETRY="1", timeout=120,
    )  # fmt: skip


def test_the_hub_gets_all_of_it_in_one_commit(run: Run, hub: HubServer) -> None:
    result = command(hub, run, "--private")
    assert result.returncode == 0, result.stderr
    assert "3 files" in result.stdout
    assert f"{hub.url}/datasets/org/name/commit/" in result.stdout
    repository = hub.repositories["datasets/org/name"]
    assert repository.private
    assert repository.commits == 1
    assert repository.branches["main"] == contents(run.dataset)


def test_what_an_earlier_publication_left_on_the_hub_goes_and_the_rest_stays(run: Run, hub: HubServer) -> None:
    before = {"train.jsonl": b"{}", "dataset_info.json": b"{}", ".gitattributes": b"*", "paper.pdf": b"%PDF"}
    hub.repositories["datasets/org/name"] = Repository(False, {"main": dict(before)})
    result = command(hub, run, "--revision", "v2")
    assert result.returncode == 0, result.stderr
    branches = hub.repositories["datasets/org/name"].branches
    assert branches["main"] == before
    assert branches["v2"] == {".gitattributes": b"*", "paper.pdf": b"%PDF", **contents(run.dataset)}


@pytest.mark.parametrize("refused", ["/lfs/", "/commit/", "/preupload/", "/repos/create"])
def test_a_hub_that_refuses_is_as_it_was(run: Run, hub: HubServer, refused: str) -> None:
    if refused != "/repos/create":
        hub.repositories["datasets/org/name"] = Repository(False, {"main": {"README.md": b"before"}})
    hub.refused = refused
    result = command(hub, run)
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]  # bars of what was sent go before it
    assert re.fullmatch("error: --to org/name: not published: .*403 Forbidden.*; what was there is as it was", last)
    assert "Traceback" not in result.stderr
    for repository in hub.repositories.values():
        assert repository.branches == {"main": {"README.md": b"before"}}


def test_nothing_private_becomes_public_and_a_dry_run_asks_nobody(run: Run, hub: HubServer) -> None:
    result = command(hub, run, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "→ dataset org/name of the Hub" in result.stdout
    assert hub.asked == []
    assert_one_error_line(command(hub, run, token=""), "needs a token", "HF_TOKEN")
    assert hub.asked == []
    hub.repositories["datasets/org/name"] = Repository(False)
    assert_one_error_line(command(hub, run, "--private"), "it exists already and is public")
    assert hub.repositories["datasets/org/name"].commits == 0
