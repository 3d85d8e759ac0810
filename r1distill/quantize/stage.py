"""The stage `quantize`: the trained student → quantized/."""

import importlib
from typing import Any

from r1distill.console import console, say
from r1distill.run import Clock, Run


def quantize_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Round the weights and save them. Returns the counts for the stage's record."""
    settings = run.recipe.quantize
    assert settings
    source = run.model("on_policy" if run.recipe.on_policy else "student")  # what came out of the last training
    with console.status(f"quantize: {source}"):
        decoder, module = (
            importlib.import_module(f"r1distill.{name}") for name in ("train.decoder", "quantize.export")
        )
        counts = module.export(
            source,
            run.model("quantized"),
            settings.scheme,
            smoothing=settings.strength(after_qat=run.recipe.train.qat is not None),
            sequences=lambda tokenizer: decoder.token_sequences(run, tokenizer, settings.examples, settings.max_tokens),
            ignore=settings.ignore,
            trust_remote_code=run.recipe.train.trusts_remote_code,
        )
    say(
        f"  {counts['bytes_before'] / 1e6:,.1f} MB → {counts['bytes'] / 1e6:,.1f} MB, {counts['linears']} layers in 8 bits"
    )
    return counts
