"""Taking layers, channels and heads out of a model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import make_run
from transformers import (
    AutoModelForCausalLM,
    BitNetConfig,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    HeliumConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from r1distill.errors import UserError
from r1distill.prune.cut import Kept, check_cut, cut, kept_of
from r1distill.prune.importance import Importance, importance_of
from r1distill.prune.stage import prune_stage, with_pruned
from r1distill.prune_section import Prune
from r1distill.run import Clock, Run
from r1distill.store import read_json
from r1distill.train.decoder import token_sequences
from r1distill.train.loading import load_model, load_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 3, "max_position_embeddings": 64,
}  # fmt: skip
SEQUENCES = [torch.arange(3, 15), torch.arange(20, 28)]


def made(kind: str = "llama", **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {**SHAPE, **changes}
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # which are 0 otherwise
                torch.nn.init.normal_(parameter)
        return model
    if kind == "smollm3":
        return SmolLM3ForCausalLM(SmolLM3Config(**shape, pad_token_id=0)).eval()
    if kind == "stablelm":
        return StableLmForCausalLM(StableLmConfig(**shape)).eval()
    if kind == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8)).eval()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=SEQUENCES[0][None]).logits


def everything(model: Any) -> Kept:
    config = model.config
    return Kept(
        list(range(config.num_hidden_layers)), [list(range(config.intermediate_size))] * config.num_hidden_layers,
        [list(range(config.num_key_value_heads))] * config.num_hidden_layers,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "smollm3"])
def test_keeping_everything_is_the_identity(kind: str) -> None:
    model = made(kind)
    before, config = logits(model), model.config.to_dict()
    cut(model, everything(model))
    assert torch.equal(logits(model), before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "smollm3"])
def test_what_does_nothing_can_be_taken_out_and_the_model_says_the_same(tmp_path: Path, kind: str) -> None:
    """A layer whose outputs are 0, channels and heads that nothing is read of."""
    model = made(kind)
    size = getattr(model.config, "head_dim", None) or 4
    with torch.no_grad():
        idle = model.model.layers[2]
        idle.self_attn.o_proj.weight.zero_()
        idle.mlp.down_proj.weight.zero_()
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, [1, 5, 19]] = 0
            layer.self_attn.o_proj.weight[:, 2 * size : 4 * size] = 0  # both query heads of key-value head 1
    before = logits(model)
    channels = [place for place in range(20) if place not in (1, 5, 19)]
    model = cut(model, Kept([0, 1, 3], [channels] * 4, [[0, 2]] * 4))
    torch.testing.assert_close(logits(model), before)
    model.save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), before)
    config = again.config
    assert (config.num_hidden_layers, config.intermediate_size) == (3, 17)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert [layer.self_attn.layer_idx for layer in again.model.layers] == [0, 1, 2]
    ids = SEQUENCES[0][None]
    whole = again.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)  # with a cache by layers
    with torch.inference_mode():
        for place in range(len(SEQUENCES[0]), whole.shape[1]):
            assert again(whole[:, :place]).logits[0, -1].argmax() == whole[0, place]


def test_importance_is_as_by_hand() -> None:
    model = made()
    found = {score: importance_of(model, SEQUENCES, score) for score in ("l1", "l2")}
    layers, channels, heads, n = torch.zeros(4), torch.zeros(4, 20), torch.zeros(4, 3), 0
    absolute = torch.zeros(4, 20)
    with torch.inference_mode():
        for sequence in SEQUENCES:
            n += len(sequence)
            states = model.model(sequence[None], output_hidden_states=True).hidden_states
            kept: dict[str, torch.Tensor] = {}
            for place, layer in enumerate(model.model.layers):
                hooks = [
                    layer.mlp.down_proj.register_forward_pre_hook(lambda m, a, kept=kept: kept.update(mlp=a[0][0])),
                    layer.self_attn.o_proj.register_forward_pre_hook(
                        lambda m, a, kept=kept: kept.update(heads=a[0][0])
                    ),
                    layer.register_forward_hook(lambda m, a, out, kept=kept: kept.update(out=out)),
                ]
                model.model(sequence[None])
                for hook in hooks:
                    hook.remove()
                after = kept["out"][0] if kept["out"].ndim == 3 else kept["out"]
                for token in range(len(sequence)):
                    layers[place] += 1 - torch.cosine_similarity(states[place][0, token], after[token], dim=0)
                    channels[place] += kept["mlp"][token] ** 2
                    absolute[place] += kept["mlp"][token].abs()
                    for group in range(3):
                        for head in (2 * group, 2 * group + 1):
                            heads[place, group] += (kept["heads"][token, 4 * head : 4 * head + 4] ** 2).sum() / 2
    torch.testing.assert_close(found["l2"].layers.float(), layers / n, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["l2"].channels.float(), (channels / n).sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["l1"].channels.float(), absolute / n, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["l2"].heads.float(), (heads / n).sqrt(), rtol=1e-4, atol=1e-6)


def importance(layers: list[float]) -> Importance:
    draw = torch.Generator().manual_seed(1)
    n = len(layers)
    return Importance(torch.tensor(layers), torch.rand(n, 20, generator=draw), torch.rand(n, 4, generator=draw))


def test_the_least_important_go() -> None:
    found = importance([0.9, 0.1, 0.5, 0.2])
    kept = kept_of(found, Prune(depth=0.5, ffn=0.25, heads=0.5))
    assert kept.layers == [0, 2]
    for place in range(4):
        for row, stay in ((found.channels[place], kept.channels[place]), (found.heads[place], kept.heads[place])):
            gone = [n for n in range(len(row)) if n not in stay]
            assert stay == sorted(stay)
            assert min(row[stay]) >= max(row[gone])
    assert {len(each) for each in kept.channels} == {15}
    assert {len(each) for each in kept.heads} == {2}


def test_layers_that_follow_each_other_go_where_they_together_are_least() -> None:
    kept = kept_of(importance([0.1, 0.9, 0.3, 0.2, 0.3, 0.9, 0.1, 0.9]), Prune(depth=3 / 8, contiguous=True))
    assert kept.layers == [0, 1, 5, 6, 7]


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0, 0.99), st.sampled_from([1, 4, 16]), st.booleans())
def test_something_always_stays_and_channels_come_in_multiples(depth, ffn, heads, multiple, contiguous) -> None:
    settings = Prune.model_construct(
        depth=depth,
        ffn=ffn,
        heads=heads,
        score="l2",
        ffn_multiple=multiple,
        contiguous=contiguous,
        examples=1,
        max_tokens=8,
    )
    kept = kept_of(importance([0.4, 0.1, 0.3, 0.2, 0.6]), settings)
    assert 1 <= len(kept.layers) == max(5 - round(depth * 5), 1)
    assert len(kept.channels[0]) in {multiple * n for n in range(1, 21)} | {20}
    assert len(kept.heads[0]) >= 1
    if multiple == 1:
        assert abs(len(kept.channels[0]) - max(20 * (1 - ffn), 1)) <= 0.5 + 1e-9


@pytest.mark.parametrize("tied", [False, True])
def test_a_qwen2_with_fewer_heads_is_the_llama_that_computes_the_same(tmp_path: Path, tied: bool) -> None:
    """vLLM takes hidden_size / heads for the size of a head of every Qwen2; of a Llama it reads head_dim."""
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "rope_theta": 5e4}
    model = made("qwen2", tie_word_embeddings=tied, rope_parameters=rope, rms_norm_eps=1e-3)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:, 8:16] = 0  # both query heads of key-value head 1
    before = logits(model)
    kept = everything(model)
    llama = cut(model, Kept(kept.layers, kept.channels, [[0, 2]] * 4))
    torch.testing.assert_close(logits(llama), before)
    llama.save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert (config["head_dim"], config["num_attention_heads"], config["attention_bias"]) == (4, 4, True)
    assert config["tie_word_embeddings"] is tied
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), before)
    assert not again.model.layers[0].self_attn.o_proj.bias.any()


def test_a_qwen2_with_all_its_heads_stays_one() -> None:
    model = made("qwen2")
    kept = everything(model)
    assert cut(model, Kept([0, 3], kept.channels, kept.heads)) is model
    assert model.config.model_type == "qwen2"


def test_lists_of_ids_are_none_of_layers() -> None:
    model = made(eos_token_id=[1, 2, 3, 4])
    kept = everything(model)
    cut(model, Kept([0, 3], kept.channels, kept.heads))
    assert model.config.eos_token_id == [1, 2, 3, 4]


def test_heads_that_no_served_model_has_are_refused() -> None:
    fewer = Prune(heads=1 / 3)
    for kind, changes, message in (
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 2},
            r"a Llama, which has no sliding window.*prune.heads = 0",
        ),
        ("stablelm", {}, "vLLM serves stablelm with all its heads alone; set prune.heads = 0"),
    ):
        model = made(kind, **changes)
        with pytest.raises(UserError, match=message):
            check_cut(model, fewer)
        check_cut(model, Prune(depth=0.5))
    for kind in ("llama", "qwen2"):  # 20 heads into a width of 24
        model = made(kind, num_attention_heads=24, num_key_value_heads=6)
        with pytest.raises(
            UserError,
            match=r"leaves 5 of 6 key-value heads: .*hidden size \(24\) is not a multiple of .*\(20\); "
            r"take one of prune.heads = 0.5, 0.667, 0.833, or",
        ):
            check_cut(model, Prune(heads=1 / 6))
        with pytest.raises(UserError, match="leaves 5 of 6"):
            cut(model, Kept(everything(model).layers, everything(model).channels, [[0, 1, 2, 3, 4]] * 4))
        check_cut(model, Prune(heads=0.5))
    check_cut(made("qwen3", num_attention_heads=24, num_key_value_heads=6), Prune(heads=1 / 6))


def test_the_stage_saves_a_qwen2_with_fewer_heads_as_a_llama(tmp_path: Path, tiny_teacher: Path) -> None:
    student = tmp_path / "student"
    load_tokenizer(make_run(tmp_path / "first", tiny_teacher).recipe.train).save_pretrained(student)
    made("qwen2", vocab_size=400, max_position_embeddings=512).save_pretrained(student)
    run = make_run(tmp_path / "run", student)
    run = Run(run.recipe.model_copy(update={"prune": Prune(heads=0.5, examples=2)}))
    counts = prune_stage(run, Clock(run, "prune"))
    assert counts["heads"] == 2
    train = with_pruned(run).recipe.train
    assert load_model(train).config.model_type == "llama"
    text = "What is 2 + 3?"
    assert load_tokenizer(train)(text)["input_ids"] == load_tokenizer(run.recipe.train)(text)["input_ids"]


@pytest.mark.parametrize(
    ("kind", "options", "settings", "problem"),
    [
        (
            BitNetConfig,
            {},
            Prune(ffn=0.2),
            r"has model.layers.0.mlp.ffn_sub_norm.weight of the shape \(20,\).*be \(16,\)",
        ),
        (BitNetConfig, {}, Prune(heads=1 / 3), "what is left of bitnet would compute nothing: .*broadcast"),
        (HeliumConfig, {"head_dim": 4}, Prune(heads=1 / 3), r"has model.layers.0.self_attn.o_proj"),
    ],
)
def test_parts_that_are_not_cut_are_refused_by_the_config_alone(
    kind: Any, options: Any, settings: Prune, problem: str
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(kind(**SHAPE, **options))
    with pytest.raises(UserError, match=rf"^\[prune\]: .*{problem}.*take a student of the Llama"):
        check_cut(model, settings)
    assert check_cut(model, Prune(depth=0.5)).config.num_hidden_layers == 2
    assert model.config.num_hidden_layers == 4


def test_a_model_that_computes_by_the_place_of_a_layer_is_not_saved(tmp_path: Path, tiny_teacher: Path) -> None:
    student = tmp_path / "student"
    load_tokenizer(make_run(tmp_path / "first", tiny_teacher).recipe.train).save_pretrained(student)
    shape = {**SHAPE, "vocab_size": 400, "max_position_embeddings": 512, "hidden_size": 32}
    config = DiffLlamaConfig(**{**shape, "num_attention_heads": 8, "num_key_value_heads": 4})
    torch.manual_seed(0)
    model = DiffLlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("model.layers.3."):  # so that it stays, and becomes the second
                parameter.mul_(5)
    model.save_pretrained(student)
    run = make_run(tmp_path / "run", student)
    run = Run(run.recipe.model_copy(update={"prune": Prune(depth=0.5, examples=2)}))
    with pytest.raises(UserError, match=r"\[prune\]: diffllama computes something else when it is opened again"):
        prune_stage(run, Clock(run, "prune"))
    assert not run.model("pruned").exists()


def test_another_architecture_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=40))
    with pytest.raises(UserError, match=r"\[prune\]: gpt2 is not made of the layers that r1distill can cut"):
        importance_of(model, SEQUENCES, "l2")


def test_nothing_to_measure_by_is_an_error() -> None:
    with pytest.raises(UserError, match="no traces in the dataset"):
        importance_of(made(), [], "l2")


# ---------------------------------------------------------------- the stage


def test_the_pruned_student_is_a_model_of_its_own_that_training_starts_from(
    tmp_path: Path, tiny_teacher: Path, capsys
) -> None:
    run = make_run(tmp_path / "run", tiny_teacher)
    run = Run(run.recipe.model_copy(update={"prune": Prune(depth=0.5, ffn=0.25, examples=8)}))
    counts = prune_stage(run, Clock(run, "prune"))
    assert (counts["layers"], counts["channels"], counts["heads"]) == (1, 192, 2)
    assert counts["parameters"] < counts["parameters_before"]
    assert "layers, 192 channels, 2 heads" in capsys.readouterr().out
    train = with_pruned(run).recipe.train
    assert (train.student, train.revision) == (str(tmp_path / "run" / "pruned"), None)
    assert with_pruned(make_run(tmp_path / "other", tiny_teacher)).recipe.train.student == str(tiny_teacher)
    model, tokenizer = load_model(train), load_tokenizer(train)
    assert model.config.num_hidden_layers == 1
    assert tokenizer.chat_template
    report = read_json(tmp_path / "run" / "pruned" / "pruning.json")
    assert report["student"] == str(tiny_teacher)
    kept = report["kept"]["layers"]
    assert report["importance"]["layers"][kept[0]] == max(report["importance"]["layers"])
    assert counts["dropped_layers"] == [1 - kept[0]]
    whole = dict(AutoModelForCausalLM.from_pretrained(tiny_teacher).named_parameters())
    found = dict(model.named_parameters())
    channels = report["kept"]["channels"][kept[0]]
    expected = whole[f"model.layers.{kept[0]}.mlp.gate_proj.weight"][channels]
    torch.testing.assert_close(found["model.layers.0.mlp.gate_proj.weight"], expected)


def test_measuring_reads_as_many_examples_as_asked_spread_over_the_set(tmp_path: Path, tiny_teacher: Path) -> None:
    run = make_run(tmp_path / "run", tiny_teacher, repeat=5)
    for examples, expected in ((4, [0, 10, 20, 30]), (100, list(range(40)))):
        found = list(token_sequences(run, load_tokenizer(run.recipe.train), examples, 9))
        assert len(found) == len(expected)
        assert {len(each) for each in found} == {9}


def test_a_run_without_a_dataset_is_told_what_to_do(tmp_path: Path, tiny_teacher: Path) -> None:
    run = make_run(tmp_path / "run", tiny_teacher)
    (run.dataset / "train.parquet").unlink()
    run = Run(run.recipe.model_copy(update={"prune": Prune(depth=0.5)}))
    with pytest.raises(UserError, match=r"measure the student on it; run `r1distill filter` first"):
        prune_stage(run, Clock(run, "prune"))


def test_nothing_taken_out_is_the_same_model(tmp_path: Path, tiny_teacher: Path) -> None:
    run = make_run(tmp_path / "run", tiny_teacher)
    run = Run(run.recipe.model_copy(update={"prune": Prune(depth=0.0)}))
    counts = prune_stage(run, Clock(run, "prune"))
    assert (counts["parameters"], counts["dropped_layers"]) == (counts["parameters_before"], [])
    before = dict(AutoModelForCausalLM.from_pretrained(tiny_teacher).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(run.model("pruned")).named_parameters())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
