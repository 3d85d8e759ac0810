"""The teacher cache as a stage of its own: what is scored, against whole distributions in float64, killed and continued."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from scripted_server import Received, Reply, ScriptedServer, chat
from small_run import ROOT, jsonl, r1distill, recipe_file, small_run
from transformers import AutoModelForCausalLM

from r1distill.cache import full_pass, stage
from r1distill.cache.traces import item_of
from r1distill.errors import UserError
from r1distill.generate.distributions import LEAST, MASS, SparseRows
from r1distill.prompting import encode, encode_prompt, load_prompt, render
from r1distill.records import Decision, Problem, Trace, Verdict
from r1distill.run import Clock, Run
from r1distill.store import read_json, write_json, write_records
from r1distill.train import teacher_cache
from r1distill.train.loading import open_cache
from r1distill.train.losses import fused_ce_kl
from r1distill.train.render import sampled_or_encoded
from r1distill.train.teacher_cache import MANIFEST, PROGRESS, CacheWriter, Teacher, TeacherCache, vocabulary_sha256

TEMPERATURES = [2.0, 5.0]
FULL = {"source": "transformers", "dtype": "float32", "temperatures": TEMPERATURES}
DROPPED = ("dropped", 1)


def sampled_run(folder: Path, teacher: Path, student: Path, copies: int = 1, **sections: Any) -> Run:
    """A run up to its filter: replies to eight sums, one of which was not kept, and one without the tokens it had."""
    tables: dict[str, Any] = {
        "teacher": {"model": str(teacher)},
        "generate": {"prompt": tiny_model.PROMPT},
        "cache": FULL,
        **sections,
        "train": {"student": str(student), "dtype": "float32", **sections.get("train", {})},
    }
    folder.mkdir(parents=True, exist_ok=True)
    run = small_run(folder, **tables)
    recipe_file(folder, **tables)
    tokenizer = tiny_model.make_tokenizer()
    traces = []
    for copy in range(copies):
        for number, problem in enumerate(tiny_model.PROBLEMS):
            text = tiny_model.reply(problem) + "!" * copy
            ids = [*encode(tokenizer, text.removeprefix("<think>\n")), tokenizer.eos_token_id]
            known = None if number == 3 else ids
            trace = Trace(
                problem.id, copy, str(teacher), "sha", number, text, "sum", "answer", "stop", token_ids=known,
                n_tokens=len(ids), mean_entropy_nats=0.1,
            )  # fmt: skip
            traces.append(trace)
    write_records(run.problems, Problem, tiny_model.PROBLEMS)
    write_records(run.traces / "00000.parquet", Trace, traces)
    write_json(run.funnel, {"sampled": len(traces), "kept": len(traces) - copies, "dropped": {"x": copies}})
    write_records(run.verdicts, Verdict, [Verdict(each.problem_id, each.sample, "correct") for each in traces])
    keep(run, [(each.problem_id, each.sample) for each in traces if each.problem_id != tiny_model.PROBLEMS[7].id])
    return run


def keep(run: Run, keys: list[tuple[str, int]]) -> None:
    write_records(
        run.decisions, Decision, [Decision(*key, True, "kept") for key in keys] + [Decision(*DROPPED, False, "x")]
    )


def scored(run: Run) -> TeacherCache:
    stage.cache_stage(run, Clock(run, "cache"))
    return TeacherCache(run.teacher_cache)


def whole_logits(folder: Path, prompt: list[int], reply: list[int]) -> torch.Tensor:
    """`(T, V)` float64 at the positions that predict the reply: one forward pass without a cache, nothing in tiles."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]


def prompt_of(tokenizer: Any, problem: Problem) -> list[int]:
    message = load_prompt(tiny_model.PROMPT, "").user_message(problem)
    return encode_prompt(tokenizer, render(tokenizer, message), "<think>\n")


def all_rows(cache: TeacherCache) -> dict[tuple[str, int], list[list[Any]]]:
    """Everything that the cache says of each trace."""
    names = ("token_ids", "lengths", "ids", "logprobs", "power_sums", "entropies")
    return {
        key: [teacher_cache.array(*cache.traces[number], name).tolist() for name in names]
        for key, number in cache.places.items()
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path, tiny_student: Path) -> Run:
    """A run whose kept traces were scored with whole distributions."""
    run = sampled_run(tmp_path_factory.mktemp("full"), tiny_teacher, tiny_student)
    scored(run)
    return run


def test_a_full_pass_gives_what_whole_distributions_in_float64_give_at_every_token(full, tiny_teacher):
    tokenizer, cache = tiny_model.make_tokenizer(), TeacherCache(full.teacher_cache)
    assert cache.temperatures == tuple(TEMPERATURES)
    for problem in tiny_model.PROBLEMS[:7]:
        found = cache.tokens_of(problem.id, 0)
        assert found is not None
        reply = found[0].tolist()
        assert tokenizer.decode(reply) == tiny_model.reply(problem).removeprefix("<think>\n") + "<|im_end|>"
        logprobs = whole_logits(tiny_teacher, prompt_of(tokenizer, problem), reply).log_softmax(1)
        number = cache.places[problem.id, 0]
        rows = cache.rows_of(number)
        entropies, power_sums = (
            teacher_cache.array(*cache.traces[number], name) for name in ("entropies", "power_sums")
        )
        expected = -(logprobs.exp() * logprobs).sum(1)
        np.testing.assert_allclose(entropies, expected.numpy(), atol=2e-5)
        for column, temperature in enumerate(TEMPERATURES):
            sums = (logprobs / temperature).logsumexp(1)
            np.testing.assert_allclose(power_sums.reshape(-1, 2)[:, column], sums.numpy(), atol=2e-5)
        for token, said in enumerate(reply):
            row = rows[token : token + 1]
            assert said in row.ids
            np.testing.assert_allclose(row.logprobs, logprobs[token, row.ids.tolist()].numpy(), atol=1e-4)
            likeliest, ids = logprobs[token].sort(descending=True)
            n = len(row.ids) - (said not in ids[: len(row.ids)])
            assert sorted(row.ids[:n]) == sorted(ids[:n].tolist())
            assert n >= LEAST
            assert likeliest[:n].exp().sum() > MASS - 1e-6 or n == 64


def test_no_distribution_differs_from_itself_at_any_temperature(full, tiny_teacher):
    """The teacher as its own student: the loss of mode "exact" is nothing, through everything that is stored."""
    tokenizer, cache = tiny_model.make_tokenizer(), TeacherCache(full.teacher_cache)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher, dtype=torch.float32)
    for problem in tiny_model.PROBLEMS[:7]:
        reply, first = cache.tokens_of(problem.id, 0)  # type: ignore[misc]
        prompt = prompt_of(tokenizer, problem)
        with torch.no_grad():
            hidden = model.base_model(input_ids=torch.tensor([[*prompt, *reply]])).last_hidden_state
            found = cache.gather(np.arange(first, first + len(reply)))
            assert found.tails is not None
            for temperature in (1.0, *TEMPERATURES):
                tail = None
                if temperature != 1.0:
                    tail = torch.from_numpy(found.tails[:, TEMPERATURES.index(temperature)])
                losses = fused_ce_kl(
                    hidden[0, len(prompt) - 1 : -1], model.get_output_embeddings().weight,
                    torch.tensor(reply.tolist()), torch.from_numpy(found.ids), torch.from_numpy(found.logprobs),
                    teacher_tail=tail, temperature=temperature, mode="exact",
                )  # fmt: skip
                assert losses.n_teacher_tokens == len(reply)
                assert -1e-6 < losses.kl_sum.item() / len(reply) < 1e-5


# ---------------------------------------------------------------- what is scored


def test_the_kept_traces_are_scored_and_no_other(full):
    cache = TeacherCache(full.teacher_cache)
    assert set(cache.places) == {(problem.id, 0) for problem in tiny_model.PROBLEMS[:7]}
    assert cache.manifest["tokens"] == sum(len(cache.tokens_of(*key)[0]) for key in cache.places)  # type: ignore[index]


def test_the_sampled_tokens_are_scored_and_not_those_of_their_text():
    tokenizer: Any = tiny_model.make_tokenizer()
    vocabulary = tokenizer.get_vocab()
    end = tokenizer.eos_token_id
    assert sampled_or_encoded(tokenizer, "<think>\n12", "<think>\n", [vocabulary["1"], vocabulary["2"]]) == (
        "<think>\n",
        [vocabulary["1"], vocabulary["2"]],
    )
    other = [vocabulary["7"], end]  # of another text, or of another vocabulary
    for sampled in (other, None, []):
        assert sampled_or_encoded(tokenizer, "<think>\n12", "<think>\n", sampled) == (
            "<think>\n",
            [vocabulary["1"], vocabulary["2"], end],
        )
    assert sampled_or_encoded(tokenizer, "12", "<think>\n", None)[0] == ""
    trace = Trace(
        "p", 0, "m", "s", 0, "<think>\n12", None, "", "stop", token_ids=[vocabulary["1"], vocabulary["2"], end]
    )
    item = item_of(tokenizer, "1 + 1?", "<think>\n", trace)
    assert item.trace is trace
    assert tokenizer.decode(item.prompt) == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_more_kept_traces_extend_the_cache_and_a_second_time_loads_no_model(
    tmp_path, tiny_teacher, tiny_student, monkeypatch
):
    run = sampled_run(tmp_path, tiny_teacher, tiny_student)
    first, rest = [(problem.id, 0) for problem in tiny_model.PROBLEMS[:2]], [(p.id, 0) for p in tiny_model.PROBLEMS]
    write_json(run.record_path("filter"), {"finished_at": "1"})
    keep(run, first)
    before = all_rows(scored(run))
    write_json(run.record_path("filter"), {"finished_at": "2"})
    keep(run, rest)
    counts = stage.cache_stage(run, Clock(run, "cache"))
    cache = TeacherCache(run.teacher_cache)
    after = all_rows(cache)
    assert len(after) == counts["traces"] == 8
    assert {key: after[key] for key in before} == before
    assert counts["tokens"] == cache.manifest["tokens"] - sum(len(row[0]) for row in before.values())
    assert not (run.teacher_cache / PROGRESS).exists()
    monkeypatch.setattr(full_pass, "open_pass", None)
    assert stage.cache_stage(run, Clock(run, "cache")) == counts
    keep(run, first)  # fewer: what is there stays
    assert stage.cache_stage(run, Clock(run, "cache"))["traces"] == 2
    assert len(TeacherCache(run.teacher_cache)) == 8


def test_a_trace_with_other_tokens_is_scored_again_and_the_new_ones_count(tmp_path, tiny_teacher, tiny_student):
    run = sampled_run(tmp_path, tiny_teacher, tiny_student)
    scored(run)
    problem = tiny_model.PROBLEMS[0]
    tokenizer = tiny_model.make_tokenizer()
    text = tiny_model.reply(problem) + " yes"
    other = Trace(problem.id, 0, "m", "sha", 0, text, "sum", "answer", "stop")
    write_records(run.traces / "00000.parquet", Trace, [other])
    keep(run, [(problem.id, 0)])
    cache = scored(run)
    tokens, first = cache.tokens_of(problem.id, 0)  # type: ignore[misc]
    assert tokenizer.decode(tokens.tolist()) == text.removeprefix("<think>\n") + "<|im_end|>"
    expected = whole_logits(tiny_teacher, prompt_of(tokenizer, problem), tokens.tolist()).log_softmax(1)
    found = cache.gather(np.arange(first, first + len(tokens)))
    np.testing.assert_allclose(found.logprobs[:, 0], expected.max(1).values, atol=1e-4)


# ---------------------------------------------------------------- killed

KILLED = """
import time
from r1distill.cache import full_pass
from r1distill.train import teacher_cache
teacher_cache.SEAL_EVERY_S = 0.0
real = full_pass.scores_of
def slowly(*arguments, **named):
    time.sleep(0.1)
    return real(*arguments, **named)
full_pass.scores_of = slowly
"""


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_cache(tmp_path, tiny_teacher, tiny_student):
    cache = {**FULL, "batch_tokens": 256}
    whole = sampled_run(tmp_path / "whole", tiny_teacher, tiny_student, copies=6, cache=cache)
    run = sampled_run(tmp_path / "killed", tiny_teacher, tiny_student, copies=6, cache=cache)
    for each in (whole, run):
        done(each, "generate", "verify", "filter")
    assert r1distill("cache", tmp_path / "whole" / "recipe.toml", timeout=200).returncode == 0
    code = f"{KILLED}\nfrom r1distill.cli import main\nmain()"
    for least in (2, 5):  # shards
        command = [sys.executable, "-c", code, "cache", str(tmp_path / "killed" / "recipe.toml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        while not (run.teacher_cache / f"{least:05}.arrow").exists():
            assert process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run.teacher_cache / MANIFEST).exists()
    with pytest.raises(UserError, match=r"not there, or not finished: r1distill cache RECIPE makes it"):
        open_cache(run, tiny_model.make_tokenizer())
    last = r1distill("cache", tmp_path / "killed" / "recipe.toml", timeout=200)
    assert last.returncode == 0, last.stderr
    assert "of 42 kept traces are in teacher_cache; they are not scored again" in last.stdout
    found, expected = TeacherCache(run.teacher_cache), TeacherCache(whole.teacher_cache)
    assert len(found) == found.manifest["traces"] == 42  # none of them twice
    assert all_rows(found) == all_rows(expected)
    records = [read_json(each.record_path("cache")) for each in (run, whole)]
    assert records[0]["tokens"] == records[1]["tokens"] == expected.manifest["tokens"]
    assert not list(run.teacher_cache.glob(".*"))


def done(run: Run, *names: str) -> None:
    from test_pipeline import finish

    finish(run, *names)


# ---------------------------------------------------------------- refused


def another_vocabulary(folder: Path, tiny: Path) -> Path:
    """The tiny model with two ids of its tokenizer changed over."""
    tokenizer = tiny_model.make_tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    tiny_model.save(model, tokenizer, folder)
    path = folder / "tokenizer.json"
    table = read_json(path)
    vocabulary = table["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    write_json(path, table)
    return folder


def test_another_vocabulary_is_refused_with_both_names_before_the_teacher_is_loaded(
    tmp_path, tiny_teacher, tiny_student, monkeypatch
):
    other = another_vocabulary(tmp_path / "other", tiny_student)
    monkeypatch.setattr(full_pass, "open_pass", None)
    with pytest.raises(UserError) as refused:
        scored(sampled_run(tmp_path, tiny_teacher, other))
    assert str(other) in str(refused.value)
    assert str(tiny_teacher) in str(refused.value)
    assert "one family" in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"cache": {**FULL, "k": 8}}, "k 64 (the recipe: 8)"),
        ({"cache": {**FULL, "temperatures": [2.0]}}, "temperatures [2.0, 5.0] (the recipe: [2.0])"),
        ({"cache": {**FULL, "dtype": "bfloat16"}}, 'dtype "float32" (the recipe: "bfloat16")'),
        ({"cache": {**FULL, "model": "quickstart:teacher"}}, '(the recipe: "quickstart:teacher")'),
        ({"generate": {"prompt": "prompts/math.txt"}}, "prompt_sha256"),
        ({"generate": {"prompt": tiny_model.PROMPT, "prefill": ""}}, 'prefill "<think>\\n" (the recipe: "")'),
    ],
)
def test_a_cache_that_does_not_fit_the_recipe_is_refused_with_both(
    tmp_path, full, tiny_teacher, tiny_student, sections, words
):
    run = sampled_run(tmp_path, tiny_teacher, tiny_student, **sections)
    run.teacher_cache.symlink_to(full.teacher_cache)
    before = {path: path.stat().st_mtime_ns for path in full.teacher_cache.iterdir()}
    with pytest.raises(UserError, match="do not fit the recipe") as refused:
        open_cache(run, tiny_model.make_tokenizer())
    assert words in str(refused.value)
    if "quickstart" not in words:
        with pytest.raises(UserError, match="do not fit the recipe") as refused:
            scored(run)
        assert words in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in full.teacher_cache.iterdir()} == before


def test_a_trace_that_the_teacher_has_no_room_for_has_no_distributions(tmp_path, tiny_teacher, tiny_student):
    short = tmp_path / "short"
    shutil.copytree(tiny_teacher, short)
    config = read_json(short / "config.json")
    run = sampled_run(tmp_path / "run", short, tiny_student)
    tokenizer = tiny_model.make_tokenizer()
    lengths = [
        len(prompt_of(tokenizer, each)) + len(encode(tokenizer, tiny_model.reply(each).removeprefix("<think>\n"))) + 1
        for each in tiny_model.PROBLEMS[:7]
    ]
    limit = min(lengths)
    write_json(short / "config.json", {**config, "max_position_embeddings": limit})
    counts = stage.cache_stage(run, Clock(run, "cache"))
    assert counts["refused"] == sum(length > limit for length in lengths) > 0
    assert counts["traces"] == 7 - counts["refused"] == 7 - counts["without"]


def test_a_cache_of_another_chat_template_is_not_continued(tmp_path, tiny_teacher, tiny_student):
    run = sampled_run(tmp_path, tiny_teacher, tiny_student)
    scored(run)
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.chat_template = f"{tokenizer.chat_template} "
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    changed = {**FULL, "tokenizer": str(tmp_path / "tokenizer")}
    with pytest.raises(UserError, match="template_sha256"):
        scored(sampled_run(tmp_path, tiny_teacher, tiny_student, cache=changed))


def test_a_student_with_the_tokenizer_of_its_teacher_has_its_vocabulary(tmp_path, tiny_teacher, tiny_student):
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    scoring = {"source": "vllm", "tokenizer": str(tmp_path / "tokenizer")}
    train = {"student": str(tiny_student)}
    teacher = {"model": str(tiny_teacher)}
    with pytest.raises(UserError, match="is not that of the teacher"):
        stage.check_teacher(small_run(tmp_path, teacher=teacher, cache=scoring, train=train).recipe)
    train["tokenizer"] = str(tmp_path / "tokenizer")
    _, found = stage.check_teacher(small_run(tmp_path, teacher=teacher, cache=scoring, train=train).recipe)
    assert found.vocabulary_sha256 == vocabulary_sha256(tokenizer.get_vocab())


def test_training_refuses_a_cache_of_another_vocabulary(full):
    tokenizer = tiny_model.make_tokenizer()
    assert len(open_cache(full, tokenizer)) == 7
    tokenizer.add_tokens(["<one more>"])
    with pytest.raises(
        UserError, match=r"the vocabulary of the student .*student is not that of the teacher .*teacher"
    ):
        open_cache(full, tokenizer)


# ---------------------------------------------------------------- kept while sampling


def test_what_generation_kept_is_checked_and_counted(tmp_path, tiny_teacher, tiny_student):
    run = sampled_run(tmp_path, tiny_teacher, tiny_student, cache={})
    with pytest.raises(UserError, match=r"keep_distributions = true, or score the traces"):
        stage.cache_stage(run, Clock(run, "cache"))
    prompt = load_prompt(tiny_model.PROMPT, "<think>\n")
    teacher = Teacher(
        "generation", str(tiny_teacher), None, vocabulary_sha256(tiny_model.make_tokenizer().get_vocab()), "raw_logprobs", 5,
        prompt_sha256=prompt.sha256, prefill=prompt.prefill,
    )  # fmt: skip
    rows = SparseRows(np.array([2, 1], np.uint16), np.array([1, 2, 3], np.int32), np.array([-0.1, -3, 0], np.float32))
    with CacheWriter(run.teacher_cache, teacher) as cache:
        for problem in (tiny_model.PROBLEMS[0], tiny_model.PROBLEMS[7]):  # one of the kept ones
            cache.add(Trace(problem.id, 0, "m", "s", 0, "", None, "", "stop", token_ids=[1, 3]), rows)
    counts = stage.cache_stage(run, Clock(run, "cache"))
    assert (counts["traces"], counts["without"], counts["entries_per_token"]) == (1, 6, 1.5)
    other = sampled_run(tmp_path, tiny_student, tiny_student, cache={})
    with pytest.raises(UserError, match=r"model .*teacher.* \(the recipe: .*student"):
        stage.cache_stage(other, Clock(other, "cache"))


# ---------------------------------------------------------------- vLLM


@pytest.mark.extended
def test_vllm_scores_as_the_full_pass_does(tmp_path, full, tiny_teacher, tiny_student):
    settings = {"source": "vllm", "dtype": "float32", "batch_tokens": 64, "engine": {"max_model_len": 256}}
    run = sampled_run(tmp_path, tiny_teacher, tiny_student, cache=settings)
    done(run, "generate", "verify", "filter")
    result = r1distill("cache", tmp_path / "recipe.toml", VLLM_CPU_KVCACHE_SPACE="1", timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    found, expected = TeacherCache(run.teacher_cache), TeacherCache(full.teacher_cache)
    assert found.manifest["source"] == "vllm"
    assert found.temperatures == ()
    assert set(found.places) == set(expected.places)
    for key, number in expected.places.items():
        ours, theirs = found.rows_of(found.places[key]), expected.rows_of(number)
        assert found.tokens_of(*key)[0].tolist() == expected.tokens_of(*key)[0].tolist()  # type: ignore[index]
        for token in range(len(theirs)):
            one, other = ours[token : token + 1], theirs[token : token + 1]
            reference = dict(zip(other.ids.tolist(), other.logprobs.tolist(), strict=True))
            shared = [place for place, id_ in enumerate(one.ids.tolist()) if id_ in reference]
            assert len(shared) >= min(len(one.ids), len(other.ids)) - 1  # at MASS rounding decides of the last
            expected_here = [reference[id_] for id_ in one.ids[shared].tolist()]
            np.testing.assert_allclose(one.logprobs[shared], expected_here, atol=1e-3)


# ---------------------------------------------------------------- the whole way


class ByHeart(ScriptedServer):
    """A teacher who replies as the tiny one has learned to, and to anything else with a word."""

    def reply_to(self, received: Received) -> Reply:
        super().reply_to(received)
        asked = received.body["messages"][0]["content"]
        known = next((each for each in tiny_model.PROBLEMS if each.problem in asked), None)
        return Reply(body=chat(tiny_model.reply(known).removeprefix("<think>\n") if known else "four"))


@pytest.mark.extended
@pytest.mark.timeout(1200)
def test_a_run_scores_and_trains_on_whole_distributions_at_falling_temperatures(tmp_path, tiny_teacher, tiny_student):
    problems = [{"problem": each.problem, "answer": each.answer} for each in tiny_model.PROBLEMS]
    jsonl(tmp_path / "problems.jsonl", problems)
    with ByHeart(models=(str(tiny_teacher), "pupil")) as server:  # an engine takes half a minute to start
        run_at_falling_temperatures(tmp_path, tiny_teacher, tiny_student, server.url)


def run_at_falling_temperatures(tmp_path: Path, tiny_teacher: Path, tiny_student: Path, url: str) -> None:
    path = recipe_file(
        tmp_path,
        teacher={"urls": [url], "model": str(tiny_teacher)},
        generate={"prompt": tiny_model.PROMPT, "max_tokens": 120, "temperature": 0.3, "logprobs": 0},
        cache=FULL,
        train={
            "student": str(tiny_student),
            "dtype": "float32",
            "max_length": 256,
            "kl": {
                "alpha": 0.5,
                "mode": "exact",
                "temperature": {"kind": "staged", "values": [5, 2, 1], "at": [0.0, 0.4, 0.8]},
            },
            "args": {
                "max_steps": 6,
                "per_device_train_batch_size": 8,
                "gradient_checkpointing": False,
                "logging_steps": 1,
                "learning_rate": 1e-3,
            },
        },
        eval={
            "tasks": ["quickstart"],
            "models": ["pupil"],
            "candidates": {"pupil": {"model": "pupil", "urls": [url]}},
            "limit": 2,
            "samples": 1,
            "max_tokens": 20,
        },
    )
    result = r1distill("run", path, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    run = tmp_path / "run"
    assert [line[2:] for line in result.stdout.splitlines() if line.startswith("▶")] == [
        "generate", "verify", "filter", "cache", "train", "eval",
    ]  # fmt: skip
    log = [row for row in read_json(run / "student" / "training_log.json") if "kl" in row]
    assert [row["temperature"] for row in log] == [5.0, 5.0, 2.0, 2.0, 1.0, 1.0]
    assert log[-1]["kl"] < log[-2]["kl"]
    record = read_json(run / "stages" / "cache.json")
    funnel = read_json(run / "funnel.json")
    kept, tokens = funnel["kept"], record["tokens"]
    assert record["counts"]["traces"] == kept > 0
    assert tokens == record["counts"]["cached_tokens"] > 0
    forced = kept * len("<think>\n")  # a token a byte; of these the teacher says nothing
    assert log[0]["teacher_share"] == pytest.approx(tokens / (tokens + forced))
    assert record["tokens_per_second"] > 0
    assert record["counts"]["mass"] > 0.99
    again = r1distill("run", path, timeout=200)
    assert again.stdout.count("done before") == 6
