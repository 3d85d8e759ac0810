"""The section [ablate] of the recipe: which subsets `r1distill ablate` compares at equal tokens."""

from typing import Any

from pydantic import Field, model_validator

from r1distill.section import Section, false_is_absent
from r1distill.sections import Filter

# what a training is made of besides its traces, which are the same samples for all arms
SETTABLE = ("train", "cache", "teachers", "prune", "on_policy", "quantize")
# keys of [filter] that an ablation decides for all arms alike
DECIDED_FOR_ALL = {
    "token_budget": "ablate.tokens is the budget of every arm",
    "validation_fraction": "nothing is held out, so that all that an arm keeps is taught",
}


class Arm(Section):
    """One way of filtering. By default high and low entropy are of what the recipe's own limits leave, not of loops."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=60)
    """Names its folders, RUN/ablate/NAME-seed0 and so on."""
    filter: dict[str, Any] = {}
    """Keys of [filter] put over the recipe's: `{ require_correct = false }`. A whole table replaces the recipe's, and `false`
    takes it out: `{ entropy = false }`."""
    set: dict[str, Any] = {}
    """Tables put over the recipe's for this arm: `{ train = { kl = { online = "…" } } }`; of train, cache, teachers, prune,
    on_policy and quantize; `false` takes one out, as above. The student that is scored is the last one that the arm makes."""

    def over(self, settings: Filter) -> Filter:
        """The filter of the arm. Raises pydantic's ValidationError where there is none such."""
        return Filter.model_validate({**settings.model_dump(), **false_is_absent(self.filter, Filter)})


DEFAULT_ARMS = [
    Arm(name="correct", filter={"require_correct": True}),
    Arm(name="all", filter={"require_correct": False}),
    Arm(name="no_entropy_filter", filter={"require_correct": True, "max_mean_entropy_nats": 0.0, "entropy": False}),
    Arm(name="low_entropy", filter={"require_correct": True, "token_budget_by": "lowest_entropy"}),
    Arm(name="high_entropy", filter={"require_correct": True, "token_budget_by": "highest_entropy"}),
]


class Ablate(Section):
    """What `r1distill ablate` compares. Each arm is trained and scored with each seed. The tokens of the teacher's and the epochs
    are equal; an arm of shorter traces has more of them, and more steps."""

    seeds: int = Field(default=3, ge=1)
    """Trainings of each arm, of other subsets where they are drawn. One tells nothing of how far another would be from it."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of an arm, the teacher's; absent is half of what the smallest arm keeps, so that low, high and random differ."""
    against: str | None = None
    """The arm that the others are compared with; absent is the first one."""
    arms: list[Arm] = Field(default=DEFAULT_ARMS, min_length=2)
    """The arms."""

    @model_validator(mode="after")
    def arms_are_apart(self) -> "Ablate":
        names = [arm.name.lower() for arm in self.arms]  # they are folders, and some file systems know one case only
        if twice := [arm.name for arm in self.arms if names.count(arm.name.lower()) > 1]:
            raise ValueError(f'arms: "{twice[0]}" is there twice; give every arm a name of its own')
        if self.against is not None and self.against not in [arm.name for arm in self.arms]:
            known = ", ".join(arm.name for arm in self.arms)
            raise ValueError(f'against = "{self.against}": no such arm; known: {known}')
        for arm in self.arms:
            if unknown := arm.set.keys() - set(SETTABLE):
                raise ValueError(
                    f'arm "{arm.name}": set.{min(unknown)}: an arm sets {", ".join(SETTABLE)}; take it out'
                )
            for key, why in DECIDED_FOR_ALL.items():
                if key in arm.filter:
                    raise ValueError(f'arm "{arm.name}": filter.{key} is not of one arm; take it out ({why})')
        return self

    @property
    def baseline(self) -> str:
        """The name of the arm that the others are compared with."""
        return self.against or self.arms[0].name
