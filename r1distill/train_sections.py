"""The sections of the recipe about training. The docstring of a field is its documentation in README.md."""

from typing import Any, Literal

from pydantic import Field, model_validator

from r1distill.controller_section import Controller
from r1distill.inner_sections import Attention, Hidden
from r1distill.quantize_sections import Qat
from r1distill.resources import read_file
from r1distill.section import Section

# options of [train.args] that look at a validation split, where there is none
WITHOUT_VALIDATION = {"eval_strategy": "no", "eval_on_start": False, "load_best_model_at_end": False}


class Schedule(Section):
    """A number that changes over the training: `{ kind = "linear", start = 0.9, end = 0.3 }`, or "cosine", or in stages."""

    kind: Literal["linear", "cosine", "staged"]
    """`linear` and `cosine` go from `start` to `end`; `staged` takes `values[i]` from the share `at[i]` of the steps on."""
    start: float | None = None
    """Value of the first step."""
    end: float | None = None
    """Value of the last step."""
    values: list[float] | None = None
    """Of each stage."""
    at: list[float] | None = None
    """Where each stage begins, as a share of all steps; the first at 0."""

    @model_validator(mode="after")
    def is_whole(self) -> "Schedule":
        given = {name for name in ("start", "end", "values", "at") if getattr(self, name) is not None}
        wanted = {"values", "at"} if self.kind == "staged" else {"start", "end"}
        if given != wanted:
            raise ValueError(f'a schedule of kind "{self.kind}" has {" and ".join(sorted(wanted))}, and nothing else')
        if (
            self.values is not None
            and self.at is not None
            and not (
                len(self.values) == len(self.at) > 0
                and self.at[0] == 0
                and all(
                    0 <= first < second < 1 for first, second in zip(self.at, [*self.at[1:], 0.999999], strict=True)
                )
            )
        ):
            raise ValueError(
                f"values = {self.values}, at = {self.at}: as many, and `at` ascends from 0 and stays below 1"
            )
        return self


class Kl(Section):
    """L = alpha CE + (1 - alpha) T^2 KL(teacher || student), with the teacher's distributions of teacher_cache/."""

    alpha: float | Schedule = Schedule(kind="linear", start=0.9, end=0.3)
    """Share of the cross-entropy: a number, or a schedule. In stages, 0 first is KL alone and then both."""
    temperature: float | Schedule = 1.0
    """Of both distributions; the square of it is in the loss."""
    mode: Literal["exact", "conditional", "tail"] = "conditional"
    """How distributions are compared that are known by their likeliest tokens: see "Distributions of the teacher"."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """KL(teacher || student), KL(student || teacher), or the mean of both to their middle."""
    online: str | None = None
    """Hub id or folder of a teacher that runs in the training itself, whole distributions in place of teacher_cache/."""
    cross_tokenizer: Literal["aligned", "uld"] | None = None
    """For an `online` teacher with another tokenizer: `aligned` by the bytes of the tokens, or `uld`, by rank alone."""

    @model_validator(mode="after")
    def is_sound(self) -> "Kl":
        for name, least, most in (("alpha", 0.0, 1.0), ("temperature", 1e-3, 100.0)):
            schedule = getattr(self, name)
            bounds = [schedule]
            if isinstance(schedule, Schedule):
                bounds = schedule.values or [value for value in (schedule.start, schedule.end) if value is not None]
            if not all(least <= value <= most for value in bounds):
                raise ValueError(f"{name} = {bounds}: between {least:g} and {most:g}")
        if self.cross_tokenizer and not self.online:
            raise ValueError(
                f'cross_tokenizer = "{self.cross_tokenizer}" takes a teacher in the training itself; name it in online'
            )
        if self.mode == "tail" and self.temperature != 1.0:
            raise ValueError(
                f'mode = "tail" is sound at temperature 1 only, and it is {self.temperature}; take "conditional", or "exact" '
                "with a cache of whole distributions"
            )
        return self


class Clip(Section):
    """Gradient clipping in two phases: the norm of all parameters by train.args.max_grad_norm, then of each group by its own."""

    until: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps after which the groups are clipped each by itself; before it, all by their common norm."""
    embeddings: float | None = Field(default=None, gt=0)
    """Largest norm of the group. A group without a number keeps train.args.max_grad_norm: none is ever unclipped."""
    attention: float | None = Field(default=None, gt=0)
    """Of the projections of the attention."""
    mlp: float | None = Field(default=None, gt=0)
    """Of the feed-forward layers, with the router and the experts where there are any."""
    norms: float | None = Field(default=None, gt=0)
    """Of all normalisations, those of queries and keys too."""
    head: float | None = Field(default=None, gt=0)
    """Of the output layer; one that is tied to the embeddings is counted there."""
    adapters: float | None = Field(default=None, gt=0)
    """Of all that [train.peft] adds (LoRA matrices, magnitudes, `modules_to_save`), and the projections of [train.hidden]."""


class Phase(Section):
    """A part of the training with its own mixture: `{ until = 0.5, mix = { diverse = 0.7, quality = 0.3 } }`."""

    until: float = Field(gt=0, le=1)
    """Where the phase ends, as a share of the examples of the training."""
    mix: dict[str, float]
    """Shares of the pools; together 1."""

    @model_validator(mode="after")
    def is_whole(self) -> "Phase":
        if not self.mix or min(self.mix.values()) <= 0 or abs(sum(self.mix.values()) - 1) > 1e-6:
            raise ValueError(f"mix = {self.mix}: shares above 0 that together are 1")
        return self


class Curriculum(Section):
    """Examples in phases, each a mixture of pools. The column `pools` of the dataset says which pools an example is in."""

    phases: list[Phase] = [
        Phase(until=0.5, mix={"diverse": 0.7, "quality": 0.3}),
        Phase(until=1.0, mix={"quality": 0.6, "hard": 0.4}),
    ]
    """In order; the last ends at 1. The whole training is as long as train.args says (num_train_epochs, or max_steps)."""

    @model_validator(mode="after")
    def ascends(self) -> "Curriculum":
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"the phases end at {ends}: ascending, and the last at 1")
        return self


class Restarts(Section):
    """Cosine annealing with warm restarts (https://arxiv.org/abs/1608.03983), after the warm-up of train.args."""

    cycles: int = Field(default=3, ge=1)
    """How often the rate falls from its peak."""
    length_multiplier: float = Field(default=2.0, ge=1)
    """How much longer a cycle is than the one before (T_mult)."""
    peak_decay: float = Field(default=1.0, gt=0, le=1)
    """A cycle's peak as a share of the peak before; the first is train.args.learning_rate."""
    min_rate: float = Field(default=0.1, ge=0, lt=1)
    """What every cycle falls to, as a share of train.args.learning_rate."""

    @model_validator(mode="after")
    def falls(self) -> "Restarts":
        last = self.peak_decay ** (self.cycles - 1)
        if last <= self.min_rate:
            raise ValueError(
                f"the peak of cycle {self.cycles} is {last:.3g} of the learning rate, and min_rate = {self.min_rate} is not "
                "below it; lower min_rate, or raise peak_decay"
            )
        return self


class Train(Section):
    """How the student learns. What TRL, peft, accelerate and transformers own passes through untouched."""

    student: str = Field(default="", min_length=1)
    """For `train`: Hub id, folder, or `quickstart:student`."""
    revision: str | None = None
    """Git revision on the Hub."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer that the student gets instead of its own: the teacher's, for [train.kl]."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights while training; float32 with `args.bf16 = true` is mixed precision."""
    max_length: int = Field(default=32768, ge=8)
    """Longest example, prompt and reply, in tokens."""
    overlong: Literal["drop", "error", "truncate"] = "drop"
    """What happens to longer ones; counted either way. What `truncate` leaves of one teaches neither its answer nor its end."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's template, here and in the saved student."""
    eos_token: str | None = None
    """The token that ends a reply, where it differs from the tokenizer's. Base models need it: Qwen's ends documents."""
    pad_token: str | None = None
    """A padding token that is not the end token; found by itself where the tokenizer has a spare one."""
    rope_parameters: dict[str, Any] | None = None
    """RoPE of the student, as in transformers 5: `{ rope_type = "default", rope_theta = 3e5 }`."""
    max_position_embeddings: int | None = Field(default=None, ge=1)
    """Context length written into the student's config."""
    model_args: dict[str, Any] = {}
    """Passed to `from_pretrained` (`attn_implementation = "flash_attention_2"`, …)."""
    args: dict[str, Any] = {}
    """Passed to `trl.SFTConfig`."""
    peft: dict[str, Any] | None = None
    """Passed to `peft.LoraConfig`; absent is full fine-tuning."""
    merge_adapter: bool = True
    """Save the student of a LoRA training whole, with the adapter in it (and the adapter beside it); false: the adapter alone."""
    kl: Kl | None = None
    """The divergence from the teacher; absent is plain fine-tuning."""
    teacher_revision: str | None = None
    """Git revision on the Hub of the teacher in the training: kl.online, hidden.teacher or attention.teacher."""
    hidden: Hidden | None = None
    """Absent compares no hidden states."""
    attention: Attention | None = None
    """Absent compares no attention."""
    controller: Controller | None = None
    """Absent watches nothing."""
    qat: Qat | None = None
    """Absent rounds nothing."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over the vocabulary. Beside a divergence, which has that already, best 0."""
    clip: Clip | None = None
    """Absent clips by train.args.max_grad_norm throughout."""
    curriculum: Curriculum | None = None
    """Absent draws every example once an epoch, in random order."""
    restarts: Restarts | None = None
    """Absent is the schedule of train.args.lr_scheduler_type."""
    launch: dict[str, Any] = {}
    """Flags of `accelerate launch` (`config_file`, …); empty is FSDP2 over the GPUs of this machine if it has several."""

    @model_validator(mode="after")
    def has_one_teacher(self) -> "Train":
        named = {
            f"train.{name}.{key}": getattr(section, key)
            for name, key in (("kl", "online"), ("hidden", "teacher"), ("attention", "teacher"))
            if (section := getattr(self, name)) is not None and getattr(section, key)
        }
        if len(set(named.values())) > 1:
            both = ", ".join(f"{key} = {value}" for key, value in named.items())
            raise ValueError(f"{both}: one teacher runs in the training; name the same, or take one out")
        for name in ("hidden", "attention"):
            if getattr(self, name) is not None and not named:
                raise ValueError(
                    f"[train.{name}] needs a teacher in the training: set train.{name}.teacher, or train.kl.online"
                )
            if getattr(self, name) is not None and self.kl is not None and self.kl.cross_tokenizer:
                raise ValueError(
                    f"[train.{name}] with train.kl.cross_tokenizer: states of other tokens cannot be compared; take one out"
                )
        if self.teacher_revision and not named:
            raise ValueError(
                f"train.teacher_revision = {self.teacher_revision}, and no teacher is in the training; the one of [teacher] has "
                "teacher.revision"
            )
        if self.qat is not None and self.peft is not None:
            raise ValueError(
                "[train.qat] with [train.peft]: what is rounded is merged only later; train all weights, or take it out"
            )
        if self.controller is not None and self.controller.action == "teacher" and self.kl is None:
            raise ValueError(
                'train.controller.action = "teacher" changes alpha, and there is no [train.kl]; take another action'
            )
        if (
            self.kl is not None
            and self.kl.cross_tokenizer
            and (self.args.get("packing") or self.args.get("padding_free"))
        ):
            raise ValueError(
                "train.kl.cross_tokenizer with packing: other tokens make other packs; set train.args.packing = false"
            )
        return self

    @property
    def online_section(self) -> str:
        """Which section names the teacher that runs in the training."""
        return "train.kl" if self.kl and self.kl.online else "train.hidden" if self.hidden else "train.attention"

    @property
    def online_teacher(self) -> str | None:
        """The teacher that runs in the training itself, whoever asks for it."""
        named = (
            self.kl and self.kl.online,
            self.hidden and self.hidden.teacher,
            self.attention and self.attention.teacher,
        )
        return next((each for each in named if each), None)

    @property
    def trusts_remote_code(self) -> bool:
        """Whether code that comes with the student may be run; off unless `model_args` says so."""
        return self.model_args.get("trust_remote_code", False)

    @property
    def tokenizer_used(self) -> tuple[str, str | None, str]:
        """Name, revision and recipe key of the tokenizer that the student is trained and saved with."""
        if self.tokenizer:
            return self.tokenizer, None, "train.tokenizer"
        return self.student, self.revision, "train.student"


def chat_template_text(train: Train) -> str | None:
    """The text of `train.chat_template`, or None where the tokenizer's own is used."""
    return read_file(train.chat_template, "train.chat_template") if train.chat_template else None
