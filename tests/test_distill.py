"""The trainer: TRL's loss where there is no teacher, the slow formula where there is one, however the batch is cut."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from tiny_trainer import LENGTHS, PROMPT, assert_same, copy_of, examples, make, of_columns, settings, trained
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.sft_trainer import SFTTrainer

from r1distill.errors import UserError
from r1distill.generate.distributions import sparse_rows
from r1distill.records import Trace
from r1distill.train.distill import DistillTrainer
from r1distill.train.teacher_cache import NO_ROW, CacheWriter, Teacher, TeacherCache
from r1distill.train_sections import Kl, Schedule, Train

K = 6
SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEACHER = Teacher("generation", "teacher", None, "0" * 64, "raw_logprobs", K)


@pytest.fixture
def model() -> Any:
    return tiny_model.make_model(tiny_model.make_tokenizer()).float()


def make_cache(folder: Path, vocabulary: int, teacher: Teacher = TEACHER) -> tuple[TeacherCache, torch.Tensor]:
    """A cache of one trace a sequence, and the teacher's whole logits at all of its rows."""
    chance = np.random.default_rng(1)
    tokens = [length - PROMPT - 1 for length in LENGTHS]
    logits = 3 * chance.standard_normal((sum(tokens), vocabulary))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-logprobs, axis=1)[:, :K]
    top = np.take_along_axis(logprobs, ids, axis=1)
    rows = sparse_rows(ids, top, ids[:, 0], top[:, 0])
    powers = np.exp(logprobs[:, None, :] / np.array(teacher.temperatures)[:, None]).sum(axis=2)
    with CacheWriter(folder, teacher) as cache:
        start = 0
        for number, n in enumerate(tokens):
            trace = Trace(
                f"p{number}", 0, "teacher", "sha", 0, "", None, "", "stop", token_ids=list(range(n)), n_tokens=n
            )
            cache.add(trace, rows[start : start + n], np.log(powers[start : start + n]))
            start += n
    return TeacherCache(folder), torch.from_numpy(logits)


@pytest.mark.parametrize("changes", [{}, {"packing": True}, {"padding_free": True}, {"per_device_train_batch_size": 1}])
def test_without_a_teacher_a_step_is_that_of_trl(tmp_path, model, changes):
    ours = make(model, tmp_path / "ours", **changes)
    theirs = SFTTrainer(
        model=copy_of(model), args=settings(tmp_path / "theirs", **changes),
        train_dataset=of_columns(examples(model.config.vocab_size), "input_ids", "labels"),
        processing_class=tiny_model.make_tokenizer(),
    )  # fmt: skip
    assert_same(trained(ours), trained(theirs))
    assert ours.state.log_history[0]["loss"] == pytest.approx(theirs.state.log_history[0]["loss"], rel=1e-5)
    for name in ("mean_token_accuracy", "num_tokens"):
        assert ours.state.log_history[0][name] == pytest.approx(theirs.state.log_history[0][name])


def test_with_alpha_1_the_teacher_changes_nothing(tmp_path, model):
    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    assert_same(
        trained(make(model, tmp_path / "kl", cache, Kl(alpha=1.0, temperature=2.0))),
        trained(make(model, tmp_path / "ce")),
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_the_slow_formula_over_all_tokens_of_the_batch(tmp_path, model, temperature):
    cache, logits = make_cache(tmp_path / "cache", model.config.vocab_size)
    trainer = make(
        model, tmp_path / "run", cache, Kl(alpha=0.3, temperature=temperature), per_device_train_batch_size=8
    )
    ce = kl = n = 0.0
    for row in examples(model.config.vocab_size):
        ids = torch.tensor([row["input_ids"]])
        student = model(input_ids=ids).logits[0].double()
        for place in range(PROMPT, ids.shape[1]):
            log_q = student[place - 1].log_softmax(0)  # the position before predicts it
            ce, n = ce - log_q[ids[0, place]].item(), n + 1
            if row["teacher_row"][place] == NO_ROW:
                continue
            teacher = logits[row["teacher_row"][place]]
            log_p, top = teacher.log_softmax(0).topk(K)
            keep = min(len(log_p), max(4, int((log_p.exp().cumsum(0) - log_p.exp() < 0.999).sum())))
            log_p, top = log_p[:keep], top[:keep]
            inside_p = (log_p / temperature).log_softmax(0)
            inside_q = (student[place - 1][top] / temperature).log_softmax(0)
            p, q = log_p.exp().sum(), log_q[top].exp().sum()
            mass = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            kl += (temperature**2 * p * (inside_p.exp() * (inside_p - inside_q)).sum() + mass).item()
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx((0.3 * ce + 0.7 * kl) / n, rel=1e-4)
    logged = trainer.state.log_history[0]
    assert (logged["alpha"], logged["temperature"]) == (0.3, temperature)
    assert logged["teacher_share"] == pytest.approx((n - len(LENGTHS)) / n)


def test_what_is_logged_is_of_all_tokens_of_a_step_however_the_batch_is_cut(tmp_path, model):
    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    logged = []
    for size in (1, 8):
        trainer = make(
            model, tmp_path / str(size), cache, Kl(alpha=0.3), per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )  # fmt: skip
        trainer.train()
        logged.append(trainer.state.log_history[0])
    for name in ("ce", "kl", "teacher_mass", "teacher_share", "entropy", "mean_token_accuracy"):
        assert logged[0][name] == pytest.approx(logged[1][name], rel=1e-5), name
    row = logged[0]
    assert row["loss"] == pytest.approx(0.3 * row["ce"] + 0.7 * row["kl"] * row["teacher_share"], rel=1e-4)


def test_a_cache_of_whole_distributions_is_exact_at_its_temperatures(tmp_path, model):
    """The tail at 2 and 4 is that of the whole logits, and the step takes the one of its own temperature."""
    grid = dataclasses.replace(TEACHER, source="transformers", temperatures=(2.0, 4.0))
    cache, logits = make_cache(tmp_path / "cache", model.config.vocab_size, grid)
    rows = np.array([NO_ROW, 0, 17])
    found = cache.gather(rows)
    assert found.tails is not None
    for row, place in ((0, 1), (17, 2)):
        for column, temperature in enumerate(grid.temperatures):
            ids = found.ids[place][found.ids[place] >= 0]
            outside = (logits[row] / temperature).softmax(0).double()
            outside[ids] = 0
            assert found.tails[place, column] == pytest.approx(outside.sum().log().item(), abs=1e-5)
    stages = Schedule(kind="staged", values=[4.0, 2.0], at=[0.0, 0.5])
    trainer = make(model, tmp_path / "run", cache, Kl(alpha=0.0, temperature=stages, mode="exact"), max_steps=2)
    trainer.train()
    assert [row["temperature"] for row in trainer.state.log_history if "temperature" in row] == [4.0, 2.0]
    assert all(np.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("changes", [{}, {"padding_free": True}])
def test_a_teacher_in_the_training_gives_the_divergence_of_whole_distributions(tmp_path, model, divergence, changes):
    teacher = tiny_model.make_model(tiny_model.make_tokenizer(), hidden_size=64).float()
    kl = Kl(alpha=0.25, temperature=2.0, divergence=divergence)
    trainer = make(model, tmp_path, kl=kl, online_teacher=copy_of(teacher), per_device_train_batch_size=8, **changes)
    trainer.train()
    ce = divergences = n = 0.0
    for row in examples(model.config.vocab_size):
        ids = torch.tensor([row["input_ids"]])
        student, other = (each.eval()(input_ids=ids).logits[0, PROMPT - 1 : -1].double() for each in (model, teacher))
        ce -= student.log_softmax(1).gather(1, ids[0, PROMPT:, None]).sum().item()
        log_q, log_p = (student / 2).log_softmax(1), (other / 2).log_softmax(1)
        if divergence == "reverse":
            log_p, log_q = log_q, log_p
        divergences += (log_p.exp() * (log_p - log_q)).sum().item()
        n += len(student)
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx((0.25 * ce + 0.75 * 4 * divergences) / n, rel=1e-4)
    assert logged["kl"] == pytest.approx(divergences / n, rel=1e-4)
    assert trainer.online is not None
    assert all(parameter.grad is None for parameter in trainer.online.model.parameters())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AutoConfig.for_model("granite", **SMALL, logits_scaling=8.0), r"granite scales its logits \(logits_scaling\)"),
        (AutoConfig.for_model("phi", **SMALL), "the head of phi has a bias"),
    ],
)
def test_a_model_whose_logits_are_more_than_hidden_times_weight_is_refused(tmp_path, model, kind, words):
    other = AutoModelForCausalLM.from_config(kind)
    with pytest.raises(UserError, match=f"the student: {words}"):
        make(other, tmp_path)
    with pytest.raises(UserError, match=f"the teacher of train.kl.online: {words}"):
        make(model, tmp_path, kl=Kl(), online_teacher=other)


KL = Kl(
    alpha=Schedule(kind="linear", start=0.8, end=0.2),
    temperature=Schedule(kind="staged", values=[4.0, 1.0], at=[0.0, 0.5]),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 8, "padding_free": True},
    ],
)
def test_however_a_batch_of_ragged_sequences_is_cut_the_step_is_the_same(tmp_path, model, changes):
    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    whole = trained(make(model, tmp_path / "whole", cache, KL, per_device_train_batch_size=8))
    assert_same(trained(make(model, tmp_path / "cut", cache, KL, **changes)), whole)


def test_packed_is_separate(tmp_path, model):
    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    packed = make(model, tmp_path / "packed", cache, KL, packing=True, per_device_train_batch_size=2)
    packs: Any = packed.train_dataset
    assert 1 < len(packs) < len(LENGTHS)
    packed = make(model, tmp_path / "all", cache, KL, packing=True, per_device_train_batch_size=len(packs))
    whole = trained(make(model, tmp_path / "whole", cache, KL, per_device_train_batch_size=8))
    assert_same(trained(packed), whole)


def test_alpha_and_temperature_follow_the_step_and_not_the_epoch(tmp_path, model):
    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    trainer = make(model, tmp_path / "run", cache, KL, max_steps=5, learning_rate=1e-3)
    trainer.train()
    logged = [(row["alpha"], row["temperature"]) for row in trainer.state.log_history if "alpha" in row]
    assert [alpha for alpha, _ in logged] == pytest.approx([0.8, 0.65, 0.5, 0.35, 0.2])
    assert [temperature for _, temperature in logged] == [4.0, 4.0, 1.0, 1.0, 1.0]


def test_a_lora_student_learns_through_the_same_head(tmp_path, model):
    from peft import LoraConfig

    cache, _ = make_cache(tmp_path / "cache", model.config.vocab_size)
    trainer = DistillTrainer(
        settings=Train(student="tiny", kl=Kl(alpha=0.5)), cache=cache, model=copy_of(model),
        args=settings(tmp_path, max_steps=30, learning_rate=5e-2, optim="adamw_torch"),
        train_dataset=of_columns(examples(model.config.vocab_size), "input_ids", "labels", "teacher_row"),
        processing_class=tiny_model.make_tokenizer(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"),
    )  # fmt: skip
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
