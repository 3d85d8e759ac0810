"""What each arm teaches: subsets of the same traces, of equally many tokens of the teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from r1distill.ablate.arms import recipe_of, take_over, with_filter
from r1distill.ablate_section import Arm
from r1distill.errors import UserError
from r1distill.filter.columns import Flags, Floats, words
from r1distill.filter.rules import measured
from r1distill.filter.select import Selection, read_tags, select
from r1distill.filter.stage import exact_entropies
from r1distill.filter.tagging import is_tagged, tag
from r1distill.recipe import Recipe
from r1distill.run import Clock, Run


@dataclass(frozen=True, slots=True)
class Material:
    """An arm, and what is measured of the run's N traces: `tags`, read from `path`, and `exact (N,)` mean entropies."""

    arm: Arm
    path: Path
    tags: pa.Table
    exact: Floats | None


@dataclass(frozen=True, slots=True)
class Subset:
    """What one training is taught: `kept (N,)` of the run's traces, and what they are like.

    `in_baseline` is the share of its traces that the baseline has with the same seed, `mean_entropy_nats` None where no
    entropy was measured.
    """

    kept: Flags
    traces: int
    tokens: int
    problems: int
    correct: float
    mean_entropy_nats: float | None
    in_baseline: float


@dataclass(frozen=True, slots=True)
class Design:
    """An ablation: `subsets[arm][number]` of each arm and training, `tokens` at most in each.

    `material[arm]` is what they were taken from and `available[arm]` the fewest tokens that were there. `same_as` are arms
    that have the very subsets of an earlier one; they are not trained.
    """

    tokens: int
    baseline: str
    material: dict[str, Material]
    available: dict[str, int]
    subsets: dict[str, list[Subset]]
    same_as: dict[str, str]

    @property
    def trained(self) -> list[Arm]:
        """The arms that are trained, the baseline first."""
        return [each.arm for name, each in self.material.items() if name not in self.same_as]


def is_measured(run: Run) -> bool:
    """Whether the run's own tags are what all arms ask for, so that an ablation can be designed without measuring anything."""
    return all(is_tagged(with_filter(run, arm)) for arm in run.recipe.ablate.arms)


def design_of(run: Run, clock: Clock, *, rescore: bool = True) -> Design:
    """The ablation of a run that was sampled and verified; its traces are measured once, where they are not yet.

    Without `rescore` what [filter.entropy] would score again counts as undecided. Raises UserError for an arm that keeps
    nothing or less than ablate.tokens, and where all arms are the same.
    """
    recipe, ablate = run.recipe, run.recipe.ablate
    arms = sorted(ablate.arms, key=lambda arm: arm.name != ablate.baseline)
    material = {arm.name: material_of(run, arm, clock, rescore=rescore) for arm in arms}
    available = {name: available_tokens(recipe, each) for name, each in material.items()}
    tokens = equal_tokens(available, ablate.tokens)
    kept = {
        name: [chosen(recipe, each, number, tokens).kept for number in range(ablate.seeds)]
        for name, each in material.items()
    }
    subsets = {
        name: [subset(material[name], *flags) for flags in zip(of_arm, kept[ablate.baseline], strict=True)]
        for name, of_arm in kept.items()
    }
    for name, of_arm in subsets.items():
        if not all(each.traces for each in of_arm):
            raise UserError(f"{tokens} tokens are less than the first trace of the arm {name} has; raise ablate.tokens")
    same_as = repeats(recipe, arms, kept)
    if len(arms) - len(same_as) < 2:
        raise UserError(
            f"all arms ({', '.join(arm.name for arm in arms)}) keep the same traces at {tokens:,} tokens, so that there is "
            "nothing to compare; lower ablate.tokens, or give other ablate.arms"
        )
    return Design(tokens, ablate.baseline, material, available, subsets, same_as)


def material_of(run: Run, arm: Arm, clock: Clock, *, rescore: bool) -> Material:
    """The tags of the run itself where they are what the arm asks for, else those of its first training, made now."""
    here = tagged = with_filter(run, arm)
    if not is_tagged(here):
        tagged = Run(recipe_of(run.recipe, arm, 0, None))
        take_over(run, tagged, None)
        tag(tagged, clock)
    tags = read_tags(tagged.tags, here.recipe.filter)
    return Material(arm, tagged.tags, tags, exact_entropies(here, tags, clock) if rescore else None)


def chosen(recipe: Recipe, material: Material, number: int, tokens: int | None) -> Selection:
    """The selection that training `number` of an arm makes."""
    recipe = recipe_of(recipe, material.arm, number, tokens)
    return select(material.tags, recipe.filter, recipe.seed, material.exact)


def available_tokens(recipe: Recipe, material: Material) -> int:
    """The fewest tokens that an arm keeps in any of its trainings without a budget. Raises UserError where it keeps none."""
    name, n_tokens, least = material.arm.name, measured(material.tags, "n_tokens"), []
    for number in range(recipe.ablate.seeds):
        selection = chosen(recipe, material, number, None)
        kept = selection.kept
        if not kept.any():
            reasons = np.bincount(selection.reason, minlength=len(selection.names)).tolist()
            dropped = ", ".join(
                f"{n} {reason}" for reason, n in zip(selection.names, reasons, strict=True) if n and reason != "kept"
            )
            raise UserError(
                f"the arm {name} keeps none of {len(kept)} traces (dropped: {dropped}); loosen its filter in ablate.arms"
            )
        if np.isnan(n_tokens[kept]).any() or not n_tokens[kept].all():
            raise UserError(
                f"the tokens of some traces that the arm {name} keeps were not counted, so that no two arms can be given "
                "equally many; drop those by a rule in filter.rules, or sample traces of your own"
            )
        least.append(int(n_tokens[kept].sum()))
    return min(least)


def equal_tokens(available: dict[str, int], asked: int | None) -> int:
    """The tokens of every arm: as many as are asked for, or half of those of the smallest one."""
    smallest = min(available, key=lambda name: available[name])
    if asked is None:
        return max(available[smallest] // 2, 1)
    if asked > available[smallest]:
        raise UserError(
            f"ablate.tokens = {asked}: the arm {smallest} keeps {available[smallest]} tokens; lower it, sample more, or take the "
            "arm out"
        )
    return asked


def subset(material: Material, kept: Flags, baseline: Flags) -> Subset:
    tags = material.tags
    entropies = measured(tags, "mean_entropy_nats")[kept]
    correct = words(tags, "outcome")
    is_correct = correct.places[kept] == (correct.known.index("correct") if "correct" in correct.known else -2)
    traces = int(kept.sum())
    return Subset(
        kept=kept,
        traces=traces,
        tokens=int(measured(tags, "n_tokens")[kept].sum()),
        problems=len(np.unique(words(tags, "problem_id").places[kept])),
        correct=float(is_correct.mean()) if traces else 0.0,
        mean_entropy_nats=None if np.isnan(entropies).all() else float(np.nanmean(entropies)),
        in_baseline=int((kept & baseline).sum()) / max(traces, 1),
    )


def repeats(recipe: Recipe, arms: Sequence[Arm], kept: dict[str, list[Flags]]) -> dict[str, str]:
    """The arms whose traces are those of an earlier one in every training, and which that is."""

    def in_pools(arm: Arm) -> list[object]:
        """What puts the traces of an arm into the pools of a curriculum, which are taught too."""
        filter = arm.over(recipe.filter)
        return [filter.pools, filter.quality, filter.clusters] if filter.pools else []

    def alike(arm: Arm, other: Arm) -> bool:
        return in_pools(arm) == in_pools(other) and arm.set == other.set

    found: dict[str, str] = {}
    for place, arm in enumerate(arms):
        for other in arms[:place]:
            same = all(map(np.array_equal, kept[arm.name], kept[other.name]))
            if other.name not in found and same and alike(arm, other):
                found[arm.name] = other.name
                break
    return found
