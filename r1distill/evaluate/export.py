"""`r1distill export RUN --to FORMAT`: the scores of a run for the tools and pages of others, with their conditions."""

from collections.abc import Callable
from pathlib import Path

from r1distill.errors import UserError
from r1distill.evaluate.exports import lighteval, lm_eval, model_index
from r1distill.evaluate.exports.scored import Scored, scored_models

FORMATS: dict[str, Callable[[str, list[Scored], Path], list[Path]]] = {
    "lm-eval": lm_eval.write,
    "lighteval": lighteval.write,
    "model-index": model_index.write,
}


def export(run: Path, to: str, out: Path | None = None) -> list[Path]:
    """Write the scores of every model of a run, each into a folder of its own below `out` (RUN/export/FORMAT).

    The numbers are those of summary.json to the digit. Returns the paths. Raises UserError for an unknown format and
    where there are no scores.
    """
    if to not in FORMATS:
        raise UserError(f"--to {to}: unknown; known: {', '.join(FORMATS)}")
    folder = out or run / "export" / to
    return [path for model, scored in scored_models(run).items() for path in FORMATS[to](model, scored, folder)]
