"""Hidden states and attention in the trainer: with packs and padding, checkpointing, adapters, and what is saved."""

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from peft import LoraConfig
from safetensors import safe_open
from tiny_trainer import PROMPT, assert_same, copy_of, examples, make, of_columns, parameters, settings, trained
from transformers import LlamaForCausalLM

from r1distill.errors import UserError
from r1distill.inner_sections import Attention, Hidden
from r1distill.quantize_sections import Qat
from r1distill.train.attention import relation, relations_sum
from r1distill.train.distill import DistillTrainer
from r1distill.train.forward import PROJECTIONS
from r1distill.train.hidden import hidden_sum
from r1distill.train_sections import Kl, Train


@pytest.fixture(scope="module")
def student() -> LlamaForCausalLM:
    return tiny_model.make_model(tiny_model.make_tokenizer())


@pytest.fixture(scope="module")
def teacher() -> LlamaForCausalLM:
    """Three layers and other weights, as wide as the student."""
    torch.manual_seed(3)
    config = copy_of(tiny_model.make_model(tiny_model.make_tokenizer())).config
    config.num_hidden_layers = 3
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def wider() -> LlamaForCausalLM:
    return tiny_model.make_model(tiny_model.make_tokenizer(), hidden_size=192)


def by_hand(student: Any, teacher: Any, hidden: Hidden | None, attention: Attention | None) -> tuple[float, float]:
    """The mean over all taught tokens of both, one sequence at a time."""
    found, n = [0.0, 0.0], 0
    with torch.no_grad():
        for row in examples(student.config.vocab_size):
            ids = torch.tensor([row["input_ids"]])
            taught = torch.zeros(ids.shape, dtype=torch.bool)
            taught[0, PROMPT - 1 : -1] = True
            n += int(taught.sum())
            parts: list[dict[str, Any]] = []
            for model, layers in ((student, (1, 2)), (teacher, (2, 3))):
                kept: dict[str, torch.Tensor] = {}
                last = model.model.layers[-1].self_attn
                hooks = [
                    getattr(last, name).register_forward_hook(
                        lambda m, a, out, name=name, kept=kept: kept.update({name: out})
                    )
                    for name in ("q_proj", "k_proj", "v_proj")
                ]
                output = model.model(input_ids=ids, output_hidden_states=True)
                for hook in hooks:
                    hook.remove()
                states = [output.hidden_states[layer][taught] for layer in layers if layer < len(output.hidden_states)]
                parts.append({"states": states, "relations": [[kept[f"{kind}_proj"] for kind in "qkv"]]})
            if hidden:
                found[0] += hidden_sum(parts[0]["states"], parts[1]["states"], None, hidden.loss).item()
            if attention:
                segments = torch.zeros_like(ids)
                both = (parts[0]["relations"], parts[1]["relations"])
                found[1] += relations_sum(*both, taught, segments, 2).item()
    return found[0] / n, found[1] / n


WAYS = {
    "padded": {"per_device_train_batch_size": 8},
    "padding-free": {"per_device_train_batch_size": 8, "padding_free": True},
    "checkpointed": {
        "per_device_train_batch_size": 8, "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
}  # fmt: skip


@pytest.mark.parametrize("way", ["padded", "padding-free", "checkpointed"])
def test_both_terms_are_as_by_hand_however_the_batch_is_made(tmp_path: Path, student, teacher, way: str) -> None:
    hidden, attention = Hidden(teacher="t", layers={"1": 2, "2": 3}, weight=0.5), Attention(teacher="t", weight=0.25)
    trainer = make(
        student,
        tmp_path,
        online_teacher=copy_of(teacher),
        train={"hidden": hidden, "attention": attention},
        **WAYS[way],
    )
    trainer.train()
    row = trainer.state.log_history[0]
    expected = by_hand(student, teacher, hidden, attention)
    assert (row["hidden"], row["attention"]) == pytest.approx(expected, rel=1e-4)
    assert row["loss"] == pytest.approx(row["ce"] + 0.5 * expected[0] + 0.25 * expected[1], rel=1e-4)


@pytest.mark.parametrize("way", ["padding-free", "checkpointed", "accumulated"])
def test_gradients_are_the_same_however_the_batch_is_made(tmp_path: Path, student, teacher, way: str) -> None:
    inside = {"hidden": Hidden(teacher="t"), "attention": Attention(teacher="t")}
    first, second = (
        trained(make(student, tmp_path / name, online_teacher=copy_of(teacher), train=inside, **WAYS[name]))
        for name in ("padded", way)
    )
    assert_same(first, second)


def test_rows_longer_than_the_limit_weigh_as_others_do_and_packing_changes_little(
    tmp_path: Path, student, teacher
) -> None:
    """Every taught token is compared, in blocks: the more rows are packed the less of a row is in one of them."""
    inside = {"attention": Attention(teacher="t", max_tokens=16)}
    found = {}
    for way in ("padded", "padding-free"):
        trainer = make(
            student, tmp_path / way, online_teacher=copy_of(teacher), train=inside, max_steps=20, learning_rate=0.0,
            logging_steps=20, **WAYS[way],
        )  # fmt: skip
        trainer.train()
        found[way] = trainer.state.log_history[0]["attention"]
    whole = by_hand(student, teacher, None, Attention(teacher="t"))[1]
    assert found["padding-free"] == pytest.approx(found["padded"], rel=0.15)
    assert 0.4 * whole < found["padded"] < whole


def test_attention_is_read_in_layers_that_round(tmp_path: Path, student, teacher) -> None:
    trainer = make(
        student, tmp_path, online_teacher=copy_of(teacher),
        train={"attention": Attention(teacher="t"), "qat": Qat(start=0.0)},
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["attention"] > 0


def test_reentrant_checkpointing_which_hides_queries_from_the_gradient_is_refused(tmp_path: Path, student) -> None:
    with pytest.raises(UserError, match="use_reentrant = true: queries and keys have no gradient"):
        make(
            student, tmp_path, online_teacher=copy_of(student), train={"attention": Attention(teacher="t")},
            gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True},
        )  # fmt: skip


def test_relations_are_computed_in_float32_under_mixed_precision() -> None:
    vectors = 20 * torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))  # scores of hundreds
    visible = torch.ones(1, 6, 6, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = relation(vectors, visible, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, relation(vectors, visible, 2))


def test_equal_models_cost_nothing(tmp_path: Path, student) -> None:
    inside = {"hidden": Hidden(teacher="t", loss="mse"), "attention": Attention(teacher="t", layers="uniform", count=2)}
    trainer = make(student, tmp_path, online_teacher=copy_of(student), train=inside)
    trainer.train()
    row = trainer.state.log_history[0]
    assert (row["hidden"], row["attention"]) == pytest.approx((0, 0), abs=1e-5)


def test_maps_are_compared_where_the_attention_gives_them(tmp_path: Path, student, teacher) -> None:
    attention = Attention(teacher="t", loss="maps", max_tokens=64)
    with pytest.raises(
        UserError, match=r'"sdpa", which gives no maps; set train.model_args.attn_implementation = "eager"'
    ):
        make(student, tmp_path, online_teacher=copy_of(teacher), train={"attention": attention})
    ours, theirs = copy_of(student), copy_of(teacher)
    for model in (ours, theirs):
        model.set_attn_implementation("eager")

    def trainer(attention: Attention) -> DistillTrainer:
        return DistillTrainer(
            settings=Train(student="tiny", attention=attention), online_teacher=theirs, model=ours,
            args=settings(tmp_path, per_device_train_batch_size=8), processing_class=tiny_model.make_tokenizer(),
            train_dataset=of_columns(examples(student.config.vocab_size), "input_ids", "labels"),
        )  # fmt: skip

    with torch.no_grad():
        total, n = 0.0, 0
        for row in examples(student.config.vocab_size):
            ids = torch.tensor([row["input_ids"]])
            q, p = (model.model(ids, output_attentions=True).attentions[-1][0] for model in (ours, theirs))
            kl = (p * (p.clamp(min=1e-30) / q.clamp(min=1e-30)).log()).sum(-1).mean(0)
            total += kl[PROMPT - 1 : -1].sum().item()
            n += ids.shape[1] - PROMPT
    found = trainer(attention)
    found.train()
    assert found.state.log_history[0]["attention"] == pytest.approx(total / n, rel=1e-4)
    assert isinstance(ours, LlamaForCausalLM)


def test_projections_are_trained_and_are_no_part_of_the_student(tmp_path: Path, student, wider) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch", "learning_rate": 1e-2}
    inside = {"hidden": Hidden(teacher="t")}
    whole = make(student, tmp_path / "whole", online_teacher=copy_of(wider), train=inside, **options)
    before = {name: value.clone() for name, value in parameters(whole).items() if PROJECTIONS in name}
    after = trained(whole)
    assert before
    assert all(not torch.equal(before[name], after[name]) for name in before)
    for checkpoint in (tmp_path / "whole").glob("checkpoint-*"):
        with safe_open(checkpoint / "model.safetensors", "pt") as file:
            assert not [name for name in file.keys() if PROJECTIONS in name]  # noqa: SIM118 - not a mapping
    assert LlamaForCausalLM.from_pretrained(tmp_path / "whole" / "checkpoint-4").config.hidden_size == 128
    resumed = make(student, tmp_path / "whole", online_teacher=copy_of(wider), train=inside, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same(parameters(resumed), parameters(whole))


def test_adapters_learn_from_hidden_states_too_and_projections_are_found_again(tmp_path: Path, student, wider) -> None:
    def trainer() -> DistillTrainer:
        return DistillTrainer(
            settings=Train(student="tiny", hidden=Hidden(teacher="t"), kl=Kl(alpha=0.5, online="t")),
            online_teacher=copy_of(wider), model=copy_of(student),
            args=settings(tmp_path, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-2, optim="adamw_torch"),
            train_dataset=of_columns(examples(student.config.vocab_size), "input_ids", "labels"),
            processing_class=tiny_model.make_tokenizer(),
            peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"),
        )  # fmt: skip

    whole = trainer()
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert whole.model is not None
    learned = [name for name, value in whole.model.named_parameters() if value.requires_grad]
    assert any(PROJECTIONS in name for name in learned)
    found, expected = parameters(resumed), parameters(whole)
    assert_same({name: found[name] for name in learned}, {name: expected[name] for name in learned})
    hidden = [row["hidden"] for row in whole.state.log_history if "hidden" in row]
    assert hidden[-1] < hidden[0]


def test_relation_heads_that_do_not_divide_are_an_error(tmp_path: Path, student, teacher) -> None:
    with pytest.raises(UserError, match=r"train.attention.heads = 7: the student has 128 dimensions"):
        make(student, tmp_path, online_teacher=copy_of(teacher), train={"attention": Attention(teacher="t", heads=7)})
