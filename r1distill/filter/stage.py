"""The stage `filter`: traces and verdicts → tags, decisions, the funnel, and the dataset that `load_dataset` opens."""

from typing import Any

import pyarrow as pa

from r1distill.console import say
from r1distill.errors import UserError
from r1distill.filter.card import dataset_card
from r1distill.filter.dataset import write_dataset
from r1distill.filter.entropy_filter import Floats, entropy_words
from r1distill.filter.funnel import funnel_of
from r1distill.filter.rescore import exact_column, rescore
from r1distill.filter.select import read_tags, select, write_decisions
from r1distill.filter.split import is_validation
from r1distill.filter.tagging import put_pools, tag
from r1distill.run import Clock, Run
from r1distill.store import replacing_folder, write_json, write_text


def filter_stage(run: Run, clock: Clock) -> dict[str, Any]:
    """Measure every trace that is not measured yet, decide on all of them, and write the kept ones as a dataset.

    Raises UserError when none is kept.
    """
    settings = run.recipe.filter
    tag(run, clock)
    tags = read_tags(run.tags, settings)
    selection = select(tags, settings, run.recipe.seed, exact_entropies(run, tags, clock))
    if settings.pools:
        put_pools(run, tags, selection.kept)
    write_decisions(run.decisions, tags, selection)
    funnel = funnel_of(tags, selection)
    write_json(run.funnel, funnel)
    for warning in funnel["warnings"]:
        say(f"  warning: {warning}")
    if not funnel["kept"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in funnel["dropped"].items())
        remedy = "sample more, a stronger teacher or a longer generate.max_tokens, or loosen [filter]"
        if run.recipe.traces is not None:
            references = "filter.require_correct = false where the set has no references"
            remedy = f'loosen [filter] ({references}), or set traces.verdicts = "theirs"'
        raise UserError(
            f"no trace is left after filtering ({funnel['sampled']} sampled; dropped: {dropped}); {remedy}; the traces are kept"
        )
    with replacing_folder(run.dataset) as folder:
        counts = write_dataset(run, folder, is_validation(tags, settings.validation_fraction), clock.tick)
        if not counts["train"]:
            raise UserError(
                f"all {funnel['kept']} kept traces fall into the validation split (filter.validation_fraction = "
                f"{settings.validation_fraction}); make it smaller or sample more problems"
            )
        write_text(folder / "README.md", dataset_card(run, folder, funnel))
    return {**funnel, "dataset": dict(counts)}


def exact_entropies(run: Run, tags: pa.Table, clock: Clock) -> Floats | None:
    """Mean entropies `(N,)` of the traces whose bounds leave [filter.entropy] undecided, scored again where it asks for that."""
    settings = run.recipe.filter.entropy
    if settings is None or settings.undecided != "rescore":
        return None
    keys = list(zip(tags["problem_id"].to_pylist(), tags["sample"].to_pylist(), strict=True))
    undecided = entropy_words(tags, settings) == "undecided"
    wanted = {key for key, is_undecided in zip(keys, undecided.tolist(), strict=True) if is_undecided}
    if not wanted:
        return None
    return exact_column(keys, rescore(run, wanted, clock.tick), settings.scope)
