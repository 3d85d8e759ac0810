"""Checkpoints that are whole, and the student as it is served."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from r1distill.models import resolve_model
from r1distill.run import Run
from r1distill.store import make_readable, write_json
from r1distill.train.distill import PROJECTIONS_FILE, DistillTrainer
from r1distill.train.loading import load_model
from r1distill.train_sections import Train

STATE = "trainer_state.json"  # the last file that transformers writes into a checkpoint


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill in the middle leaves one without its state, removed here."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
            return checkpoint
        except (FileNotFoundError, json.JSONDecodeError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def save_student(run: Run, trainer: DistillTrainer, tokenizer: PreTrainedTokenizerBase, main: bool) -> None:
    """The final model as `vllm serve` opens it: whole, merged, in bfloat16, with the template and both end tokens."""
    temporary = run.folder / ".student"
    if trainer.is_fsdp_enabled:
        # checkpoints are in shards; of these save_model would write nothing
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # type: ignore[union-attr]
    trainer.save_model(str(temporary))  # gathers the shards of FSDP and DeepSpeed; every process takes part
    leave_the_others(trainer)
    if not main:
        return
    (temporary / PROJECTIONS_FILE).unlink(missing_ok=True)
    settings = run.recipe.train
    if settings.peft is not None and settings.merge_adapter:
        base = load_model(settings, quantized=False)
        model = PeftModel.from_pretrained(base, str(temporary)).merge_and_unload()
        make_readable(temporary)
        shutil.move(temporary, run.student / "adapter")
        save_whole(model, temporary, settings)
    elif settings.peft is None and settings.dtype != "bfloat16":
        code = {"trust_remote_code": settings.trusts_remote_code}
        save_whole(AutoModelForCausalLM.from_pretrained(temporary, dtype=torch.bfloat16, **code), temporary, settings)
    tokenizer.save_pretrained(temporary)
    generation_config(settings, tokenizer).save_pretrained(temporary)
    make_readable(temporary)
    # config.json (adapter_config.json) last: a folder that has it is complete
    for file in sorted(temporary.iterdir(), key=lambda path: path.name in ("config.json", "adapter_config.json")):
        file.replace(run.student / file.name)
    temporary.rmdir()
    write_json(run.student / "training_log.json", trainer.state.log_history)


def leave_the_others(trainer: Trainer) -> None:
    """From here on each process is by itself: for the end of a training that went well, when nothing more is exchanged.

    A process that ends as a member of its group can be aborted by gloo's threads (pytorch issue 190489), and the launcher
    then ends the first one, which is still writing. After an error nobody should call this: the others may be waiting in
    a collective operation, and NCCL would wait for them.
    """
    trainer.end()
    unset_hf_deepspeed_config()  # ZeRO-3 would split what is loaded now among processes that have left


def save_whole(model: Any, folder: Path, settings: Train) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)


def generation_config(settings: Train, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Both ends: of the chat template and of the base model, which ends documents with another token (Qwen: 151643)."""
    path = resolve_model(settings.student, "train.student")
    base = AutoConfig.from_pretrained(path, revision=settings.revision, trust_remote_code=settings.trusts_remote_code)
    ends = base.eos_token_id if isinstance(base.eos_token_id, list) else [base.eos_token_id]
    return GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        bos_token_id=base.bos_token_id,
        eos_token_id=list(dict.fromkeys(end for end in [tokenizer.eos_token_id, *ends] if end is not None)),
        pad_token_id=tokenizer.pad_token_id,
    )
