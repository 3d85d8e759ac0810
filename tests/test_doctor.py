"""Each trap that others have reported (templates, tokens, RoPE, masks, clipping, checkpoints) has a fixture that is caught."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from small_run import small_run
from tokenizers import normalizers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from r1distill.doctor.command import check_divergence, doctor, findings_of, launch_of, makes_distributions, read_student
from r1distill.doctor.context import (
    check_base_can_be_asked,
    check_evaluation_room,
    check_rope,
    check_sampling_room,
)
from r1distill.doctor.data import check_data, traps_of
from r1distill.doctor.findings import Finding
from r1distill.doctor.machine import check_disk, check_files, parameters_of, sampling_bytes, student_bytes
from r1distill.doctor.reading import Launch, Model, read_launch, read_model
from r1distill.doctor.sampling import check_sampling
from r1distill.doctor.tokens import check_ends, check_parity, check_student_tokens, check_template
from r1distill.doctor.training import check_training
from r1distill.doctor.versions import check_attention, check_versions, installed_versions, requirements_of
from r1distill.errors import UserError
from r1distill.evaluate.tasks import load_task
from r1distill.recipe import Recipe, find_recipe, load_recipe
from r1distill.resources import shipped_names
from r1distill.run import Run
from r1distill.train.options import check_options

PREFILL = "<think>\n"
REPLY = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTENT, START = "{{ m['content'] }}", "assistant\n{% endif %}"
PROMPTS = {"generate.prompt": "{problem}", "math500": "{problem}"}
FSDP = """distributed_type: FSDP
num_processes: 8
fsdp_config:
  fsdp_version: {version}
  fsdp_activation_checkpointing: {checkpoints}
"""
ONE_PROCESS = Launch("process")
DEEPSPEED = "distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config:\n  zero_stage: 3\n"


def saved(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **config: Any) -> Path:
    """The folder of a model without weights: what the doctor reads of one."""
    tokenizer = tokenizer or tiny_model.make_tokenizer()
    options = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 4096, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None, "tie_word_embeddings": True, **config,
    }  # fmt: skip
    LlamaConfig(**options).save_pretrained(folder)
    GenerationConfig(eos_token_id=options["eos_token_id"]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def student(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **config: Any) -> Model:
    return read_model(str(saved(folder / "model", tokenizer, **config)), None, "train.student")


def with_template(template: str) -> PreTrainedTokenizerFast:
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def recipe(folder: Path, **sections: Any) -> Recipe:
    train = {"student": "org/student", "max_length": 4096, "dtype": "float32", **sections.pop("train", {})}
    train["args"] = {"learning_rate": 1e-5, **train.get("args", {})}
    return small_run(folder, train=train, **sections).recipe


def trained(folder: Path, launch: Launch = ONE_PROCESS, tied: bool = False, **train: Any) -> list[Finding]:
    return check_training(recipe(folder, train=train), launch, tied)


def launched(folder: Path, text: str, **train: Any) -> Launch:
    (folder / "accelerate.yaml").write_text(text)
    return read_launch(
        recipe(folder, train={"launch": {"config_file": str(folder / "accelerate.yaml")}, **train}).train
    )


def traps(findings: list[Finding]) -> list[tuple[str, str]]:
    """(severity, check) of those that are not well; each has to say what to do."""
    found = [finding for finding in findings if finding.severity != "ok"]
    assert all(finding.remedy for finding in found), found
    return [(finding.severity, finding.check) for finding in found]


def only(findings: list[Finding]) -> Finding:
    [found] = [finding for finding in findings if finding.severity != "ok"]
    return found


# ---- a recipe without a trap


def test_a_sound_model_has_no_findings(tmp_path: Path) -> None:
    model, sound = student(tmp_path), recipe(tmp_path)
    findings = [
        *check_ends(model, "base"),
        *check_student_tokens(model, sound.train),
        *check_template(model, PREFILL),
        *check_parity(model, PREFILL, PREFILL, PROMPTS),
        *check_rope(model, sound.train),
        *check_base_can_be_asked(sound, model.tokenizer.chat_template),
    ]
    assert not traps(findings)
    assert len(findings) >= 10
    assert not traps(trained(tmp_path))
    assert not traps(check_sampling(sound, False, False))


# ---- versions


def test_our_own_environment_is_sound() -> None:
    installed = installed_versions()
    assert not traps(check_versions(installed, requirements_of(installed), ["torch", "trl", "vllm"]))


def test_a_version_outside_the_pins_or_another_packages_requirement_is_named_with_whose_it_is() -> None:
    requirements = {"r1distill": ['trl<1.17,>=1.16; extra == "train"'], "vllm": ["transformers<5.20,>=5.16.1"]}
    installed = {"trl": "1.17.0", "transformers": "4.57.0", "vllm": "0.32.0"}
    found = check_versions(installed, requirements, ["trl", "peft"])
    assert [(f.check, f.value, f.limit) for f in found if f.severity == "error"] == [
        ("peft", "not installed", "needed by the recipe"),
        ("transformers", "4.57.0", "vllm wants <5.20,>=5.16.1"),
        ("trl", "1.17.0", "r1distill wants <1.17,>=1.16"),
    ]


@pytest.mark.parametrize(
    ("torch", "torchvision", "is_trap"),
    [
        ("2.13.0+cpu", "0.28.0", True),
        ("2.13.0", "0.28.0+cpu", True),
        ("2.13.0+cpu", "0.28.0+cpu", False),
        ("2.13.0", "0.28.0", False),
    ],
)
def test_torchvision_of_another_build_than_torch(torch: str, torchvision: str, is_trap: bool) -> None:
    found = check_versions({"torch": torch, "torchvision": torchvision}, {}, [])
    assert traps(found) == ([("error", "torchvision")] if is_trap else [])


def test_flash_attention_that_is_not_there() -> None:
    assert "not installed" in only(check_attention("flash_attention_2", {"torch": "2.13.0"}, 8)).limit
    assert "no GPU" in only(check_attention("flash_attention_2", {"flash-attn": "2.8"}, 0)).limit
    assert not traps(check_attention("flash_attention_2", {"flash-attn": "2.8"}, 1))
    assert not traps(check_attention("sdpa", {}, 0))


# ---- tokens


def test_padding_that_is_the_end_token(tmp_path: Path) -> None:
    found = only(check_student_tokens(student(tmp_path), recipe(tmp_path, train={"pad_token": "<|im_end|>"}).train))
    assert (found.severity, found.remedy) == ("error", "choose another")
    assert "<|im_end|> is the end token too" in found.value


def test_an_end_token_that_is_not_the_templates(tmp_path: Path) -> None:
    """Qwen's base models end documents (151643), and ChatML ends turns (151645)."""
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.eos_token, tokenizer.pad_token = "<|endoftext|>", "<|im_start|>"
    found = only(check_student_tokens(student(tmp_path, tokenizer), recipe(tmp_path).train))
    assert "ends a turn with '<|im_end|>', but the end token is '<|endoftext|>'" in found.value
    assert found.remedy == "set train.eos_token to the former"


def test_a_model_that_does_not_stop_where_its_template_ends_a_turn(tmp_path: Path) -> None:
    found = only(check_ends(student(tmp_path, eos_token_id=0), "base"))
    assert (found.severity, found.value) == ("warning", "it stops at <|endoftext|> (0)")
    assert not traps(check_ends(student(tmp_path / "both", eos_token_id=[0, 2]), "base"))


def test_fewer_rows_of_the_embeddings_than_tokens(tmp_path: Path) -> None:
    findings = check_student_tokens(student(tmp_path, vocab_size=200), recipe(tmp_path).train)
    assert ("error", only(findings).value) == ("error", "200")


def test_a_teacher_whose_ids_are_other_tokens(tmp_path: Path) -> None:
    """As many tokens, and one relabelled, as R1-Distill-Qwen's 151644 is."""
    relabelled = tiny_model.make_tokenizer()
    text = relabelled.backend_tokenizer.to_str().replace("<|im_start|>", "<|User|>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=type(relabelled.backend_tokenizer).from_str(text),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=relabelled.chat_template,
    )
    folder = str(saved(tmp_path / "teacher", tokenizer))
    found = only(check_divergence(recipe(tmp_path, train={"kl": {"online": folder}}), student(tmp_path)))
    assert (found.severity, found.value) == ("error", "1 ids differ: 1 is '<|im_start|>' and '<|User|>'")
    assert "model" in found.check
    assert "teacher" in found.check
    same = str(saved(tmp_path / "same"))
    assert not traps(check_divergence(recipe(tmp_path, train={"kl": {"online": same}}), student(tmp_path)))
    assert "cross_tokenizer" in found.remedy
    crossed = recipe(tmp_path, train={"kl": {"online": folder, "cross_tokenizer": "aligned"}})
    [aligned] = check_divergence(crossed, student(tmp_path))
    assert aligned.value == "tokenizers can be aligned, 258 tokens are the same bytes"
    inside = only(check_divergence(recipe(tmp_path, train={"hidden": {"teacher": folder}}), student(tmp_path)))
    assert ("[train.hidden]" in inside.check, "cross_tokenizer" in inside.remedy) == (True, False)
    several = recipe(
        tmp_path, train={"kl": {}}, cache={"source": "transformers"}, teacher={"model": folder},
        teachers=[{"name": "fits", "model": same}, {"name": "not", "model": folder}],
    )  # fmt: skip
    assert folder in only(check_divergence(several, student(tmp_path))).check
    taken = recipe(tmp_path, train={"student": same, "tokenizer": folder, "kl": {"online": folder}})
    assert not traps(check_divergence(taken, read_student(taken)))  # the student is trained with its teacher's


# ---- template


def test_a_template_that_deletes_the_reasoning(tmp_path: Path) -> None:
    template = CHATML.replace(CONTENT, "{{ m['content'].split('</think>')[-1] }}")
    found = only(check_template(student(tmp_path, with_template(template)), PREFILL))
    assert found.severity == "warning"  # what is taught is rendered without it
    assert found.check.endswith("reasoning in a finished turn")


def test_a_tokenizer_that_drops_the_tags(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("</think>", "")
    found = [f for f in check_template(student(tmp_path, tokenizer), PREFILL) if "taught once" in f.check]
    assert "</think> is not supervised" in only(found).value


def test_two_beginnings_of_text(tmp_path: Path) -> None:
    tokenizer = with_template("<|endoftext|><|endoftext|>" + CHATML)
    tokenizer.bos_token, tokenizer.pad_token = "<|endoftext|>", "<|im_start|>"
    found = check_template(student(tmp_path, tokenizer), PREFILL)
    assert ("error", "beginnings of text") in [(f.severity, f.check.rpartition(": ")[2]) for f in found]
    assert "two beginning-of-text tokens" in "".join(f.value for f in found)
    tokenizer.chat_template = "<|endoftext|>" + CHATML
    assert not traps(check_template(student(tmp_path / "one", tokenizer), PREFILL))


def test_a_prompt_that_is_no_prefix_of_the_conversation(tmp_path: Path) -> None:
    template = CHATML.replace(START, "assistant\n[reply]\n{% endif %}")
    found = only(check_template(student(tmp_path, with_template(template)), PREFILL))
    assert (found.severity, found.limit) == ("warning", "the prompt is a prefix of the conversation")


def test_a_template_that_opens_the_thinking_itself_does_not_double_it(tmp_path: Path) -> None:
    model = student(tmp_path, with_template(CHATML.replace(START, "assistant\n<think>\n{% endif %}")))
    findings = check_template(model, PREFILL) + check_parity(model, PREFILL, PREFILL, PROMPTS)
    assert not traps(findings)
    assert any("opens <think>, which is taught and forced once" in finding.value for finding in findings)


def test_a_template_that_switches_the_thinking_off(tmp_path: Path) -> None:
    template = CHATML.replace(START, "assistant\n<think>\n\n</think>\n\n{% endif %}")
    findings = check_template(student(tmp_path, with_template(template)), PREFILL)
    assert [f.severity for f in findings if "start of a reply" in f.check] == ["error"]


def test_a_tag_that_cannot_be_cut_from_the_prompt_would_be_there_twice(tmp_path: Path) -> None:
    template = CHATML.replace(START, "assistant\n<think>\nOkay,{% endif %}")
    found = only(check_parity(student(tmp_path, with_template(template)), PREFILL, PREFILL, PROMPTS))
    assert (found.severity, found.limit) == ("error", "the ids that are taught, and <think> once")


def test_an_evaluation_that_asks_otherwise_than_training(tmp_path: Path) -> None:
    model = student(tmp_path)
    found = only(check_parity(model, PREFILL, "", PROMPTS))
    assert (found.value, found.remedy) == ("it forces ''", "set eval.prefill = '<think>\\n'")
    found = only(check_parity(model, PREFILL, PREFILL, {**PROMPTS, "math500": "Solve: {problem}"}))
    assert found.value == "math500: another prompt"


def test_a_base_without_a_template_that_is_to_be_scored(tmp_path: Path) -> None:
    scored = recipe(tmp_path, eval={"models": ["base", "student"]})
    assert only(check_base_can_be_asked(scored, None)).check == "eval.models"
    assert not check_base_can_be_asked(recipe(tmp_path, eval={"models": ["student"]}), None)


def test_a_student_without_a_template(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.chat_template = None
    model = student(tmp_path, tokenizer)
    assert "train.chat_template" in only(check_student_tokens(model, recipe(tmp_path).train)).remedy
    given = recipe(tmp_path, train={"chat_template": "prompts/chatml.jinja"}).train
    assert not traps(check_student_tokens(model, given) + check_template(model, PREFILL))


# ---- RoPE and context


@pytest.mark.parametrize(
    ("train", "severity", "check"),
    [
        ({"max_length": 32768}, "error", "train.max_length"),
        ({"max_length": 32768, "max_position_embeddings": 32768}, "warning", "train.max_position_embeddings"),
        ({"model_args": {"rope_theta": 3e5}}, "error", "train.model_args.rope_theta"),
        ({"rope_parameters": {"rope_type": "default"}}, "error", "train.rope_parameters"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}}, "warning", "train.rope_parameters"),
    ],
)  # fmt: skip
def test_a_context_that_the_rope_does_not_reach(
    tmp_path: Path, train: dict[str, Any], severity: str, check: str
) -> None:
    """Qwen2.5-Math has 4,096 positions and a theta of 10,000, and transformers 5 ignores `rope_theta`."""
    model = student(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    assert traps(check_rope(model, recipe(tmp_path, train=train).train)) == [(severity, check)]
    raised = {
        "max_length": 32768, "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 3e5},
    }  # fmt: skip
    assert not traps(check_rope(model, recipe(tmp_path, train=raised).train))


def test_an_evaluation_longer_than_the_context(tmp_path: Path) -> None:
    model, tasks = student(tmp_path), [load_task("math500")]
    longer = recipe(tmp_path, eval={"models": ["student"], "engine": {"max_model_len": 32768}})
    found = check_evaluation_room(longer, tasks, model)
    assert traps(found) == [("error", "eval.engine.max_model_len"), ("warning", "math500: max_tokens")]
    fits = recipe(tmp_path, eval={"models": ["student"], "max_tokens": 1024})
    assert not traps(check_evaluation_room(fits, tasks, model))


def test_replies_longer_than_the_teachers_engine_or_the_training(tmp_path: Path) -> None:
    teacher = student(tmp_path)
    long = recipe(tmp_path, generate={"max_tokens": 8192}, teacher={"engine": {"max_model_len": 8192}})
    found = check_sampling_room(long, teacher)
    assert [f.check for f in found] == ["teacher.engine.max_model_len", "generate.max_tokens", "generate.max_tokens"]
    assert not traps(check_sampling_room(recipe(tmp_path, generate={"max_tokens": 2048}), teacher))


# ---- sampling


@pytest.mark.parametrize(
    ("sections", "severity", "check"),
    [
        ({"generate": {"temperature": 0.0, "samples": 4}}, "warning", "generate.temperature"),
        ({"teacher": {"model": "deepseek-ai/DeepSeek-R1"}, "generate": {"temperature": 0.2}}, "warning", "generate.temperature"),
        ({"generate": {"logprobs": 50}}, "warning", "generate.logprobs"),
        ({"teacher": {"engine": {"max_logprobs": 5}}}, "error", "teacher.engine.max_logprobs"),
        ({"teacher": {"engine": {"logprobs_mode": "processed_logprobs"}}}, "error", "teacher.engine.logprobs_mode"),
        ({"generate": {"thinking_budget": 40000}}, "warning", "generate.thinking_budget"),
        ({"generate": {"logprobs": 0}}, "warning", "filter.max_mean_entropy_nats"),
        ({"train": {"kl": {}}}, "error", "[train.kl]"),
    ],
)  # fmt: skip
def test_sampling_that_gives_not_what_is_needed(
    tmp_path: Path, sections: dict[str, Any], severity: str, check: str
) -> None:
    asked = recipe(tmp_path, **sections)
    assert traps(check_sampling(asked, False, makes_distributions(asked))) == [(severity, check)]


# ---- training settings


@pytest.mark.parametrize(
    ("train", "severity", "check"),
    [
        ({"max_length": 32768, "args": {"packing": True}}, "warning", "attn_implementation"),
        ({"args": {"padding_free": True, "per_device_train_batch_size": 8}}, "warning", "attn_implementation"),
        ({"max_length": 32768, "model_args": {"attn_implementation": "eager"}}, "error", "attn_implementation"),
        ({"kl": {}, "label_smoothing": 0.1}, "warning", "train.label_smoothing"),
        ({"peft": {"target_modules": ["q_proj", "lm_head"]}}, "error", "train.peft.target_modules"),
        ({"peft": {"target_modules": ".*"}}, "error", "train.peft.target_modules"),
        ({"peft": {"modules_to_save": ["lm_head"]}}, "error", "train.peft.modules_to_save"),
        ({"student": "Qwen/Qwen2.5-Math-7B", "args": {"learning_rate": 1e-3}}, "warning", "train.args.learning_rate"),
        ({"student": "Qwen/Qwen2.5-Math-7B", "peft": {}, "args": {"learning_rate": 8e-5}}, "warning", "train.args.learning_rate"),
        ({"dtype": "bfloat16"}, "warning", "train.dtype"),
        ({"args": {"save_only_model": True}}, "warning", "train.args.save_only_model"),
        ({"args": {"save_strategy": "no"}}, "warning", "train.args.save_strategy"),
        ({"args": {"ignore_data_skip": True}}, "warning", "train.args.ignore_data_skip"),
        ({"args": {"eval_strategy": "steps"}}, "error", "train.args.eval_strategy"),
    ],
)  # fmt: skip
def test_a_training_setting_that_is_a_trap(tmp_path: Path, train: dict[str, Any], severity: str, check: str) -> None:
    assert traps(trained(tmp_path, tied=True, **train)) == [(severity, check)]


def test_adapters_that_leave_the_head_alone_are_no_trap(tmp_path: Path) -> None:
    assert not traps(trained(tmp_path, tied=True, peft={"target_modules": "all-linear"}))
    assert not traps(trained(tmp_path, tied=True, peft={"modules_to_save": ["lm_head", "embed_tokens"]}))
    assert not traps(trained(tmp_path, tied=False, peft={"modules_to_save": ["lm_head"]}))


def test_packing_with_a_kernel_for_packs_is_no_trap(tmp_path: Path) -> None:
    for attention in ("flash_attention_2", "flex_attention"):
        train = {"max_length": 32768, "args": {"packing": True}, "model_args": {"attn_implementation": attention}}
        assert not traps(trained(tmp_path, **train))


def test_several_gpus_need_no_launcher_of_the_recipe(tmp_path: Path) -> None:
    """One process on several GPUs would be nn.DataParallel, which TRL refuses."""
    launch = launch_of(recipe(tmp_path), gpus=2)
    assert (launch.kind, launch.processes, launch.fsdp_version) == ("fsdp", 2, 2)
    assert launch_of(recipe(tmp_path), gpus=1) == ONE_PROCESS


def test_clipping_by_groups_where_it_would_be_wrong(tmp_path: Path) -> None:
    clip = {"attention": 0.5}
    assert not traps(trained(tmp_path, Launch("fsdp", 8, fsdp_version=2), clip=clip))
    assert "local shard" in only(trained(tmp_path, Launch("fsdp", 8, fsdp_version=1), clip=clip)).limit
    deepspeed = Launch("deepspeed", 8, gradient_clipping="auto")
    assert "ignores any other" in only(trained(tmp_path, deepspeed, clip=clip)).limit


def test_context_parallelism_drops_what_packing_and_the_divergence_need(tmp_path: Path) -> None:
    launch = read_launch(recipe(tmp_path, train={"launch": {"parallelism_config_cp_size": 2}}).train)
    found = trained(tmp_path, launch, kl={}, args={"packing": True})
    assert traps(found) == [("error", "parallelism_config_cp_size")] * 2


def test_processes_that_each_divide_by_their_own_tokens(tmp_path: Path) -> None:
    args = {"average_tokens_across_devices": False}
    assert traps(trained(tmp_path, Launch("ddp", 2), args=args)) == [
        ("error", "train.args.average_tokens_across_devices")
    ]


def test_checkpointing_of_activations_by_two_at_once(tmp_path: Path) -> None:
    launch = launched(tmp_path, FSDP.format(version=2, checkpoints="true"))
    assert (launch.kind, launch.processes, launch.fsdp_version) == ("fsdp", 8, 2)
    assert traps(trained(tmp_path, launch)) == [("error", "gradient checkpointing")]
    assert not traps(trained(tmp_path, launch, args={"gradient_checkpointing": False}))
    assert not traps(trained(tmp_path, launched(tmp_path, FSDP.format(version=2, checkpoints="false"))))


def test_deepspeed_without_clipping_ignores_max_grad_norm(tmp_path: Path) -> None:
    assert traps(trained(tmp_path, launched(tmp_path, DEEPSPEED))) == [("warning", "gradient_clipping")]
    assert not traps(trained(tmp_path, launched(tmp_path, DEEPSPEED + "  gradient_clipping: auto\n")))


def test_eight_bit_moments_that_fsdp_cannot_save(tmp_path: Path) -> None:
    launch = launched(tmp_path, FSDP.format(version=2, checkpoints="false"))
    assert traps(trained(tmp_path, launch, args={"optim": "paged_adamw_8bit"})) == [("warning", "train.args.optim")]


def test_a_launch_file_that_is_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not YAML"):
        launched(tmp_path, "a: [1")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_length": 1024}, "train.max_length is the length"),
        ({"assistant_only_loss": True}, "the whole reply is taught and nothing else"),
        ({"label_smoothing_factor": 0.1}, "it is train.label_smoothing; TRL's makes all logits once more"),
        ({"pad_token": "<|im_end|>"}, "it is train.pad_token"),
        ({"packing": True, "packing_strategy": "wrapped"}, "lets examples run into each other"),
    ],
)
def test_options_of_trl_that_are_traps_are_refused(tmp_path: Path, args: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_options(recipe(tmp_path, train={"args": args}).train)


# ---- data


def dataset(folder: Path, replies: list[str], **columns: Any) -> Path:
    rows = [
        {"problem_id": f"p{number}", "sample": 0, "prompt": f"{number} + 1?", "completion": reply, **columns}
        for number, reply in enumerate(replies)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("reply", "trap"),
    [
        (" \n", "empty"),
        (REPLY.removeprefix("<think>\n"), "no beginning of thinking"),  # vllm#13125: what was forced is not returned
        ("<think>\n1 + 1 =", "no end of thinking"),
        ("<think>\n" + REPLY, "two beginnings of thinking"),
        (REPLY + "</think>2", "two ends of thinking"),
        (REPLY.partition("</think>")[0] + "</think>\n", "no answer"),
        (REPLY.replace("=", "<|im_end|>"), "end token inside"),
        (REPLY.replace("=", "<|im_start|>"), "special token inside"),
    ],
)
def test_a_reply_that_would_be_taught_wrongly(tmp_path: Path, reply: str, trap: str) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY, reply, REPLY])
    found = [f for f in check_data(folder, recipe(tmp_path), student(tmp_path), None) if f.severity != "ok"]
    assert [(f.check, f.value) for f in found] == [(trap, "1 of 3, the first p1/0")]


def test_a_sound_dataset_has_no_findings(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY] * 20)
    assert not traps(check_data(folder, recipe(tmp_path), student(tmp_path), ONE_PROCESS))


def test_a_pool_of_the_curriculum_without_an_example(tmp_path: Path) -> None:
    phases = [{"until": 1.0, "mix": {"quality": 0.5, "hard": 0.5}}]
    folder, asked = tmp_path / "dataset", recipe(tmp_path, train={"curriculum": {"phases": phases}})
    found = check_data(dataset(folder, [REPLY] * 3, pools=["quality"]), asked, None, None)
    assert [(f.severity, f.check, f.value) for f in found if f.severity != "ok"] == [("error", "pools", "none in hard")]
    both = dataset(tmp_path / "both", [REPLY] * 3, pools=["quality", "hard"])
    assert not traps(check_data(both, asked, None, None))


def test_a_reply_as_long_as_the_limit_was_probably_cut_off(tmp_path: Path) -> None:
    asked = recipe(tmp_path, generate={"max_tokens": 100})
    assert list(traps_of(REPLY, asked, set(), None, 100)) == ["as long as generate.max_tokens"]
    assert not list(traps_of(REPLY, asked, set(), None, 99))


def test_examples_that_are_there_twice_or_on_both_sides_of_the_split(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY, REPLY])
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist([{**rows[1], "completion": f"{REPLY}."}]), folder / "validation.parquet")
    found = check_data(folder, recipe(tmp_path), None, None)
    assert traps(found) == [("warning", "of a validation problem"), ("warning", "twice")]


@pytest.mark.parametrize(
    ("overlong", "severity", "word"),
    [("drop", "warning", "dropped"), ("error", "error", "refused"), ("truncate", "warning", "truncated")],
)
def test_examples_longer_than_the_student_reads_are_counted(
    tmp_path: Path, overlong: str, severity: str, word: str
) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY] * 8 + [REPLY.replace("= 2", "= 2" * 50)])
    asked = recipe(tmp_path, train={"max_length": 128, "overlong": overlong})
    found = only(check_data(folder, asked, student(tmp_path), ONE_PROCESS))
    assert (found.severity, found.check, found.limit) == (severity, "longest example", "train.max_length = 128")
    assert f"1 of 9 would be {word}" in found.value


def test_a_tokenizer_that_drops_tags_is_found_on_the_data(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("</think>", "")
    folder = dataset(tmp_path / "dataset", [REPLY] * 9)
    found = only(check_data(folder, recipe(tmp_path), student(tmp_path, tokenizer), ONE_PROCESS))
    assert (found.check, found.value) == ("loss masks", "9 of 9 are not taught as they should be")


def test_packs_that_make_the_batch_larger_than_the_recipe_says(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY] * 90)
    packing = {"packing": True, "per_device_train_batch_size": 2}
    asked = recipe(tmp_path, train={"args": packing})
    found = only(check_data(folder, asked, student(tmp_path), Launch("ddp", 4)))
    assert (found.check, found.limit[:12]) == ("effective batch", "8 sequences,")
    enough = recipe(tmp_path, train={"args": {**packing, "gradient_accumulation_steps": 16}})
    findings = check_data(folder, enough, student(tmp_path), ONE_PROCESS)
    assert not traps(findings)
    assert any(f.check == "effective batch" and "packs of" in f.value for f in findings)


def test_fewer_examples_than_a_batch(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", [REPLY] * 7)
    found = only(check_data(folder, recipe(tmp_path), student(tmp_path), ONE_PROCESS))
    assert (found.check, found.limit) == ("effective batch", "7 examples in all")


# ---- files and room


def test_files_that_are_not_there(tmp_path: Path) -> None:
    asked = recipe(
        tmp_path, generate={"prompt": "none.txt"}, problems={"path": "none.jsonl"},
        train={"chat_template": "none.jinja", "launch": {"config_file": "none.yaml"}}, eval={"tasks": ["none"]},
    )  # fmt: skip
    findings, _, _ = check_files(asked, tmp_path / "run")
    assert [finding.check for finding in findings] == [
        "generate.prompt", "problems.path", "train.chat_template", "train.launch", "eval.tasks none"
    ]  # fmt: skip


def test_a_prompt_in_which_the_question_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Solve it.")
    findings, _, _ = check_files(recipe(tmp_path, generate={"prompt": str(tmp_path / "prompt.txt")}), tmp_path / "run")
    assert "no {problem} in it" in only(findings).value


def test_parameters_are_counted_without_weights(tmp_path: Path, tiny_student: Path) -> None:
    from transformers import AutoModelForCausalLM

    read = read_model(str(tiny_student), None, "train.student")
    assert parameters_of(read) == AutoModelForCausalLM.from_pretrained(tiny_student).num_parameters()


def test_the_disk_is_to_hold_one_checkpoint_more_than_are_kept(tmp_path: Path) -> None:
    settings = recipe(tmp_path, train={"args": {"save_total_limit": 2}}).train
    assert student_bytes(1000, settings, ONE_PROCESS) == {"checkpoints": 3 * 12_000, "student": 4_000}
    assert student_bytes(1000, settings, Launch("fsdp", 8))["checkpoints"] == 3 * 16_000
    adapter = recipe(tmp_path, train={"peft": {}}).train
    assert student_bytes(1000, adapter, ONE_PROCESS) == {"checkpoints": 0, "student": 4_000}
    kept = recipe(tmp_path, generate={"samples": 2, "max_tokens": 100, "logprobs": 20, "keep_distributions": True})
    assert sampling_bytes(kept, 10) == {"traces": 2000 * 12, "teacher_cache": 2000 * 20 * 8}


def test_more_than_the_disk_has_room_for(tmp_path: Path) -> None:
    assert traps(check_disk(tmp_path / "not" / "there", {"checkpoints": 10**18})) == [("error", "disk")]
    assert not traps(check_disk(tmp_path, {"checkpoints": 1}))


# ---- the command


@pytest.mark.parametrize("name", shipped_names("scripts/recipes", ".toml"))
def test_a_model_that_cannot_be_reached_is_said_and_everything_else_still_checked(name: str, tmp_path: Path) -> None:
    shipped = load_recipe(find_recipe(name), [f"run_dir={tmp_path / 'run'}", f'train.student="org/{name}"'])
    findings = findings_of(Run(shipped))
    [unread] = [finding for finding in findings if finding.check == "student"]
    assert unread.severity == "error"
    assert f"train.student = org/{name}: no folder of that name, and not to be had from the Hub" in unread.value
    assert "give the folder" in unread.remedy
    assert {"versions", "files", "data", "sampling", "training", "disk and memory"} <= {f.group for f in findings}
    of_this_machine = {"student", "teacher", "train.model_args.attn_implementation"}  # no Hub, no flash-attn
    assert {finding.check for finding in findings if finding.severity == "error"} <= of_this_machine


def test_the_command_prints_what_it_found_and_its_exit_code_says_whether_there_are_errors(
    tmp_path: Path, tiny_student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = {
        "train": {"student": str(tiny_student), "max_length": 256, "dtype": "float32", "args": {"learning_rate": 1e-5}},
        "generate": {"max_tokens": 200, "prompt": tiny_model.PROMPT},
        "eval": {"tasks": ["quickstart"], "max_tokens": 200},
    }
    run = small_run(tmp_path, **sound)
    assert doctor(run, as_json=False) == 0
    out = capsys.readouterr().out
    assert "0 errors, 0 warnings" in out
    assert out.index("versions") < out.index("models and tokens") < out.index("disk and memory")
    broken = {**sound, "train": {**sound["train"], "pad_token": "<|im_end|>", "max_length": 4096}}
    assert doctor(small_run(tmp_path, **broken), as_json=True) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == 2
    errors = [finding for finding in found["findings"] if finding["severity"] == "error"]
    assert [(e["group"], e["limit"], e["remedy"]) for e in errors] == [
        ("models and tokens", "", "choose another"),
        (
            "models and tokens",
            f"512 positions of {tiny_student}",
            "lower it, or set train.max_position_embeddings with train.rope_parameters",
        ),
    ]
    assert not run.folder.exists()
