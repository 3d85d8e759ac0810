"""The student of a run, measured on its dataset and cut."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from r1distill.prune.cut import check_cut, cut, kept_of
from r1distill.prune.importance import importance_of
from r1distill.prune.stage import REPORT
from r1distill.run import Run
from r1distill.store import replacing_folder, write_json
from r1distill.train.decoder import token_sequences
from r1distill.train.loading import load_model, load_tokenizer


def prune_student(run: Run, folder: Path) -> dict[str, Any]:
    """Write the pruned student with its tokenizer and REPORT into `folder`, in place of what is there."""
    settings, train = run.recipe.prune, run.recipe.train
    assert settings
    model, tokenizer = load_model(train, quantized=False).eval(), load_tokenizer(train)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    check_cut(model, settings)  # before measuring, which takes longer
    before = model.num_parameters()
    sequences = token_sequences(run, tokenizer, settings.examples, settings.max_tokens)
    importance = importance_of(model, sequences, settings.score)
    kept = kept_of(importance, settings)
    model = cut(model, kept)
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
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
