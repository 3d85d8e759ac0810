"""The error controller: a score of how the training goes, and a bounded answer to one that is too high.

No literature has it under this name; it is made of known parts: running standardisation, the hysteresis and cool-down of
any two-point controller, and the spike handling of large runs (a lower learning rate for a while: PaLM, section 5.1,
https://arxiv.org/abs/2204.02311). All that is decided follows from numbers that are equal on all processes, in pure
functions of them, and its state is in trainer_state.json of every checkpoint: a resumed run decides as the whole one would.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from r1distill.console import say
from r1distill.controller_section import Controller, ErrorBound
from r1distill.errors import UserError

FEW = 1e-2  # of the root mean square: an activation below is next to nothing
LEAST_DEVIATION = 1e-3  # of a signal that never moves
WATCHED_LAYERS = 3


@dataclass(frozen=True)
class Running:
    """Running mean and variance of a signal, by exponentially falling weights."""

    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def z(self, value: float) -> float:
        """(value - mean) / deviation, 0 before there is a second value."""
        if self.count < 2:
            return 0.0
        return (value - self.mean) / max(math.sqrt(self.variance), LEAST_DEVIATION)

    def near(self, value: float, most: float) -> float:
        """The value, no farther from the mean than so many deviations: what is answered must not become what is usual."""
        reach = most * max(math.sqrt(self.variance), LEAST_DEVIATION)
        return min(max(value, self.mean - reach), self.mean + reach)

    def after(self, value: float, memory: int) -> "Running":
        """With one value more; the first ones are averaged plainly, so that the start at 0 does not count."""
        share = max(2 / (memory + 1), 1 / (self.count + 1))
        difference = value - self.mean
        mean = self.mean + share * difference
        variance = (1 - share) * (self.variance + share * difference**2)
        return Running(mean, variance, self.count + 1)


@dataclass(frozen=True)
class State:
    """What the controller knows after a step. `notches` is how many actions are in force."""

    signals: dict[str, Running] = field(default_factory=dict)
    loss: Running = Running()
    notches: int = 0
    armed: bool = True
    acted_at: int | None = None
    calm: int = 0


def observe(state: State, settings: Controller, step: int, found: dict[str, float]) -> tuple[State, float, bool]:
    """(state, score, whether it acts) after optimizer step `step`, from 1. `found`: gradient_norm, loss and sparsity of it.

    score = sum w_i z_i / sum w_i over the signals, z_i = (x_i - m_i) / s_i with mean and deviation of the steps before.
    Gradient norm and loss variance are positive and heavy-tailed, so x is their logarithm; one loss has no variance, and that
    signal begins with the second. It acts where the score is over `threshold`, it is armed and the cool-down is over; it is
    armed again below `release`, and as many calm steps as a cool-down has take one action back. After the warm-up a value
    moves the mean by no more than one at the threshold does; what is not finite is a score of infinity and moves it not at
    all.
    """
    loss = state.loss.after(found["loss"], 10) if math.isfinite(found["loss"]) else state.loss
    values = {
        "gradient_norm": log(found["gradient_norm"]),
        "loss_variance": log(loss.variance) if math.isfinite(found["loss"]) else math.inf,
        "sparsity": found.get("sparsity", 0.0),
    }
    weights = {name: weight for name, weight in settings.signals.model_dump().items() if weight}
    is_first = loss.count == 1 and math.isfinite(found["loss"])
    if is_first:  # a variance of 0 would be the least value that the signal ever has
        weights.pop("loss_variance", None)
    known = {name: state.signals.get(name, Running()) for name in weights}
    score = math.inf
    if all(math.isfinite(values[name]) for name in weights):
        parts = [weight * known[name].z(values[name]) for name, weight in weights.items()]
        score = sum(parts) / (sum(weights.values()) or 1.0)
        taken = {name: values[name] for name in weights}
        if step > settings.warmup:
            taken = {name: known[name].near(value, settings.threshold) for name, value in taken.items()}
        known = {name: running.after(taken[name], settings.memory) for name, running in known.items()}
    state = replace(state, signals=known, loss=loss)
    if step <= settings.warmup:
        return state, score, False
    cool = state.acted_at is None or step - state.acted_at >= settings.cooldown
    acts = score > settings.threshold and state.armed and cool
    if acts:
        notches = min(state.notches + 1, most_notches(settings))
        return replace(state, notches=notches, armed=False, acted_at=step, calm=0), score, True
    calm = state.calm + 1 if score < settings.release else 0
    if calm >= settings.cooldown and cool:
        return replace(state, notches=max(state.notches - 1, 0), armed=True, calm=0), score, False
    return replace(state, armed=state.armed or score < settings.release, calm=calm), score, False


def log(value: float) -> float:
    return math.log(max(value, 1e-12)) if math.isfinite(value) else math.inf


def most_notches(settings: Controller) -> int:
    """After so many actions one more changes nothing."""
    if settings.action == "learning_rate":
        return math.ceil(math.log(settings.least_factor) / math.log(settings.factor) - 1e-9)
    return math.ceil(settings.most_alpha / settings.alpha_step - 1e-9)


def rate_factor(state: State, settings: Controller) -> float:
    """What the learning rate is multiplied by, at least `least_factor`."""
    if settings.action != "learning_rate":
        return 1.0
    return max(settings.factor**state.notches, settings.least_factor)


def alpha_taken(state: State, settings: Controller) -> float:
    """What is taken from alpha, at most `most_alpha`."""
    return min(settings.alpha_step * state.notches, settings.most_alpha) if settings.action == "teacher" else 0.0


def error_bound(bound: ErrorBound, progress: float, student_error: float) -> float:
    """e(t) = alpha (1 - exp(-beta t)) + gamma (student's error - teacher's error), t = `progress`, the share of steps done.

    Errors are shares of the taught tokens that are not the likeliest; the teacher's own text is the label, so its error is
    that of sampling, `bound.teacher_error`.
    """
    return bound.alpha * (1 - math.exp(-bound.beta * progress)) + bound.gamma * (student_error - bound.teacher_error)


class Watch(TrainerCallback, ExportableState):
    """The controller in a trainer: asks after every step, and sets the rate of the next. `metrics` are what is logged."""

    def __init__(self, settings: Controller, sparsity: "Sparsity | None", metrics: dict[str, list[float]]) -> None:
        self.settings, self.sparsity, self.metrics = settings, sparsity, metrics
        self.now = State()
        self.sums = [0.0, 0.0, 0.0]
        self.found: dict[str, float] = {}

    @property
    def alpha_taken(self) -> float:
        return alpha_taken(self.now, self.settings)

    @property
    def rate_factor(self) -> float:
        return rate_factor(self.now, self.settings)

    def add(self, nll: float, n_correct: float, n_tokens: float) -> None:
        """Sums over a part of the batch and all processes."""
        self.sums = [total + part for total, part in zip(self.sums, (nll, n_correct, n_tokens), strict=True)]

    def end_of_step(self, gradient_norm: float, accelerator: Any) -> None:
        """All parts of the batch were added; the norm is that of the whole gradient. Every process calls this."""
        nll, n_correct, n_tokens = self.sums
        self.sums = [0.0, 0.0, 0.0]
        n_tokens = max(n_tokens, 1)
        self.found = {"gradient_norm": gradient_norm, "loss": nll / n_tokens, "error": 1 - n_correct / n_tokens}
        if self.sparsity is not None:
            share, tokens = accelerator.reduce(self.sparsity.take(accelerator.device), "sum").tolist()
            self.found["sparsity"] = share / max(tokens, 1)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise UserError(
                f'[train.controller] with lr_scheduler_type = "{args.lr_scheduler_type}": both would set the rate; take one out'
            )
        known: Any = state.stateful_callbacks or {}
        saved = known.get(type(self).__name__)
        if saved and state.global_step:
            self.now = state_of(saved["attributes"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.now, score, acts = observe(self.now, self.settings, state.global_step, self.found)
        if self.rate_factor != 1.0:
            scheduler, optimizer = kwargs["lr_scheduler"], kwargs["optimizer"]
            for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate * self.rate_factor
        progress = state.global_step / max(state.max_steps, 1)
        bound = error_bound(self.settings.bound, progress, self.found["error"])
        logged = {
            "score": score,
            "actions": float(self.now.notches),
            "error": self.found["error"],
            "error_bound": bound,
        }
        if "sparsity" in self.found:
            logged["sparsity"] = self.found["sparsity"]
        for name, value in logged.items():
            self.metrics[f"controller/{name}"].append(value)
        if acts and state.is_world_process_zero:
            say(f"\n  controller: step {state.global_step} scores {score:.1f}: {self.says()}", style="yellow")

    def says(self) -> str:
        return {
            "log": "nothing is done (train.controller.action)",
            "learning_rate": f"the learning rate is multiplied by {self.rate_factor:g}",
            "teacher": f"alpha is lowered by {self.alpha_taken:g}",
        }[self.settings.action]

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": asdict(self.now)}


def state_of(saved: dict[str, Any]) -> State:
    running = {name: Running(**each) for name, each in saved["signals"].items()}
    return State(**{**saved, "signals": running, "loss": Running(**saved["loss"])})


# ---------------------------------------------------------------- sparsity


class Sparsity:
    """The share of activations that are next to nothing, of what enters the last projection of a few feed-forward layers.

    Of each token by itself, so that it does not matter which tokens a process has; padding is read too.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [module for name, module in model.named_modules() if name.endswith("mlp.down_proj")]
        if not found:
            raise UserError(
                "train.controller.signals.sparsity: no feed-forward layers of the usual names (mlp.down_proj); set it to 0"
            )
        step = max(len(found) // WATCHED_LAYERS, 1)
        self.sums: list[Tensor] = []
        for module in found[::step]:
            module.register_forward_pre_hook(self.read)

    @torch.no_grad()
    def read(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            x = inputs[0].detach().float()
            shares = (x.abs() < FEW * x.pow(2).mean(-1, keepdim=True).sqrt()).float().mean(-1)
            self.sums.append(torch.stack([shares.sum(), shares.new_tensor(shares.numel())]))

    def take(self, device: torch.device) -> Tensor:
        """The sum of the shares since the last time and of how many tokens `(2,)`."""
        found, self.sums = self.sums, []
        return torch.stack(found).sum(0) if found else torch.zeros(2, device=device)
