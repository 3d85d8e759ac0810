"""The student of a run, measured on its dataset and cut."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1distill.errors import UserError
from r1distill.prune.cut import check_cut, cut, kept_of
from r1distill.prune.importance import REMEDY, importance_of
from r1distill.prune.stage import REPORT
from r1distill.run import Run
from r1distill.store import make_readable, replacing_folder, write_json
from r1distill.train.decoder import last_states, token_sequences
from r1distill.train.loading import load_model, load_tokenizer
from r1distill.train_sections import Train

MOST_CHANGE = 0.01  # of what is computed, by another order of the same sums


def prune_student(run: Run, folder: Path) -> dict[str, Any]:
    """Write the pruned student with its tokenizer and REPORT into `folder`, in place of what is there."""
    settings, train = run.recipe.prune, run.recipe.train
    assert settings
    model, tokenizer = load_model(train, quantized=False).eval(), load_tokenizer(train)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    check_cut(model, settings)  # before measuring, which takes longer
    before = model.num_parameters()
    sequences = list(token_sequences(run, tokenizer, settings.examples, settings.max_tokens))
    importance = importance_of(model, sequences, settings.score)
    kept = kept_of(importance, settings)
    model = cut(model, kept)
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        make_readable(temporary)
        check_saved(model, train.model_copy(update={"student": str(temporary), "revision": None}), sequences[0])
        found = {name: value.tolist() for name, value in asdict(importance).items()}
        write_json(temporary / REPORT, {"student": train.student, "importance": found, "kept": asdict(kept)})
    config = model.config
    return {
        "parameters_before": before,
        "parameters": model.num_parameters(),
        "layers": config.num_hidden_layers,
        "channels": config.intermediate_size,
        "heads": config.num_attention_heads,
        "dropped_layers": [place for place in range(len(importance.layers)) if place not in kept.layers],
    }


@torch.no_grad()
def check_saved(model: Any, saved: Train, sequence: Tensor) -> None:
    """Raise UserError where what was saved computes something else than the model that was cut.

    As where a layer computes by its place (DiffLlama), which config and shapes do not tell.
    """
    kind, device = model.config.model_type, model.device
    try:
        expected = last_states(model, sequence)
        model.cpu()
        found = last_states(load_model(saved, quantized=False).eval().to(device), sequence)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UserError(f"[prune]: {kind} computes nothing with what is left of it: {error}; {REMEDY}") from None
    change = (found - expected).norm() / expected.norm()
    if not change <= MOST_CHANGE:
        raise UserError(
            f"[prune]: {kind} computes something else when it is opened again, by {change:.0%}: it has more in it that goes by "
            f"the number of layers, channels or heads; {REMEDY}"
        )
