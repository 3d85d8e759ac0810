"""The sections of the recipe about training. The docstring of a field is its documentation in README.md."""

from typing import Any, Literal

from pydantic import Field, model_validator

from r1distill.resources import read_file
from r1distill.section import Section


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

    @model_validator(mode="after")
    def is_sound(self) -> "Kl":
        for name, least, most in (("alpha", 0.0, 1.0), ("temperature", 1e-3, 100.0)):
            schedule = getattr(self, name)
            bounds = [schedule]
            if isinstance(schedule, Schedule):
                bounds = schedule.values or [value for value in (schedule.start, schedule.end) if value is not None]
            if not all(least <= value <= most for value in bounds):
                raise ValueError(f"{name} = {bounds}: between {least:g} and {most:g}")
        if self.mode == "tail" and self.temperature != 1.0:
            raise ValueError(
                f'mode = "tail" is sound at temperature 1 only, and it is {self.temperature}; take "conditional", or "exact" '
                "with a cache of whole distributions"
            )
        return self


class Train(Section):
    """How the student learns. What TRL, peft, accelerate and transformers own passes through untouched."""

    student: str
    """Hub id, folder, or `quickstart:student`."""
    revision: str | None = None
    """Git revision on the Hub."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer that the student gets instead of its own: the teacher's, for [train.kl]."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights while training; float32 with `args.bf16 = true` is mixed precision."""
    max_length: int = Field(default=32768, ge=8)
    """Longest example, prompt and reply, in tokens."""
    overlong: Literal["drop", "error"] = "drop"
    """What happens to longer ones. They are counted, and never cut: a cut answer teaches not to answer."""
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
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over the vocabulary. Beside a divergence, which has that already, best 0."""
    launch: dict[str, Any] = {}
    """Flags of `accelerate launch` (`config_file`, …); empty is FSDP2 over the GPUs of this machine if it has several."""


def chat_template_text(train: Train) -> str | None:
    """The text of `train.chat_template`, or None where the tokenizer's own is used."""
    return read_file(train.chat_template, "train.chat_template") if train.chat_template else None
