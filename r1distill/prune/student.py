"""The student of a run, measured on its dataset and cut."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1distill.errors import UserError
from r1distill.prune.cut import cut, kept_of
from r1distill.prune.importance import importance_of
from r1distill.prune.stage import REPORT
from r1distill.run import Run
from r1distill.store import opened, remade_by, replacing_folder, write_json
from r1distill.train.loading import load_model, load_tokenizer
from r1distill.train.render import render_example


def prune_student(run: Run, folder: Path) -> dict[str, Any]:
    """Write the pruned student with its tokenizer and REPORT into `folder`, in place of what is there."""
    settings, train = run.recipe.prune, run.recipe.train
    assert settings
    model, tokenizer = load_model(train, quantized=False).eval(), load_tokenizer(train)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    before = model.num_parameters()
    prefill = run.recipe.generate.prefill
    importance = importance_of(model, sequences(run, tokenizer, prefill), settings.score)
    kept = kept_of(importance, settings)
    cut(model, kept)
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


def sequences(run: Run, tokenizer: Any, prefill: str) -> Iterator[Tensor]:
    """Token ids of examples that are spread evenly over the dataset, each cut at `max_tokens`."""
    settings = run.recipe.prune
    assert settings
    path = run.dataset / "train.parquet"
    if not path.is_file():
        raise UserError(f"{path}: not there, and [prune] measures the student on it; run `r1distill filter` first")
    place = 0
    with opened(path, remade_by("filter")) as parquet:
        wanted = {n * parquet.metadata.num_rows // settings.examples for n in range(settings.examples)}
        for batch in parquet.iter_batches(columns=["prompt", "completion"]):
            for row in batch.to_pylist():
                if place in wanted:
                    example = render_example(tokenizer, row["prompt"], row["completion"], prefill)
                    yield torch.tensor(example.input_ids[: settings.max_tokens])
                place += 1
