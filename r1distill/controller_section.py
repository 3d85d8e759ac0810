"""[train.controller]: what watches a training, and what it may do."""

from typing import Literal

from pydantic import Field, model_validator

from r1distill.section import Section


class Signals(Section):
    """How much each signal counts in the score; 0 is not asked."""

    gradient_norm: float = Field(default=1.0, ge=0)
    """Norm of the gradient before clipping."""
    loss_variance: float = Field(default=1.0, ge=0)
    """Running variance of the loss of a step."""
    sparsity: float = Field(default=0.0, ge=0)
    """Share of activations of the feed-forward layers that are next to nothing; above 0 a hook reads them in every pass."""


class ErrorBound(Section):
    """The reference curve e(t) = alpha (1 - exp(-beta t)) + gamma (student's error - teacher's), t the share of the steps."""

    alpha: float = Field(default=0.5, ge=0)
    """What the first part rises to."""
    beta: float = Field(default=5.0, gt=0)
    """How fast."""
    gamma: float = Field(default=0.5, ge=0)
    """Share of the difference to the teacher."""
    teacher_error: float = Field(default=0.0, ge=0, le=1)
    """Share of its own tokens that the teacher did not hold likeliest when it sampled them; 0 of greedy samples."""


class Controller(Section):
    """A score of the training's state after every step, and what follows from one that is too high."""

    action: Literal["log", "learning_rate", "teacher"] = "log"
    """`log` only says so; `learning_rate` multiplies the rate; `teacher` lowers alpha, so that the teacher counts for more."""
    signals: Signals = Signals()
    threshold: float = Field(default=4.0, gt=0)
    """Score, in standard deviations, from which on it acts."""
    release: float = Field(default=1.0)
    """Score below which it is ready again, and calm."""
    cooldown: int = Field(default=20, ge=1)
    """Steps after an action without another; as many calm ones take an action back."""
    warmup: int = Field(default=20, ge=2)
    """Steps that are only watched."""
    memory: int = Field(default=50, ge=2)
    """Steps over which means and deviations run."""
    factor: float = Field(default=0.5, gt=0, lt=1)
    """`learning_rate`: what an action multiplies it by."""
    least_factor: float = Field(default=0.1, gt=0, le=1)
    """`learning_rate`: all actions together multiply it by no less."""
    alpha_step: float = Field(default=0.1, gt=0, le=1)
    """`teacher`: what an action takes from alpha."""
    most_alpha: float = Field(default=0.3, gt=0, le=1)
    """`teacher`: all actions together take no more."""
    bound: ErrorBound = ErrorBound()

    @model_validator(mode="after")
    def is_sound(self) -> "Controller":
        if self.release >= self.threshold:
            raise ValueError(f"release = {self.release:g} is not below threshold = {self.threshold:g}; lower it")
        if not any(self.signals.model_dump().values()):
            raise ValueError("signals: all are 0, so that nothing is watched; raise one")
        return self
