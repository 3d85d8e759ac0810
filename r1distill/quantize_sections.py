"""[quantize] and [train.qat]: the student in eight bits."""

from typing import Literal

from pydantic import Field, model_validator

from r1distill.section import Section

Scheme = Literal["int8", "int8_weights"]
USUAL_SMOOTHING = 0.8  # of llm-compressor's recipes for W8A8


class Quantize(Section):
    """The trained student as a checkpoint of 8-bit integers, in RUN/quantized. Embeddings and output layer stay as they are."""

    scheme: Scheme = "int8"
    """`int8`: weights by output channel, activations by token as they come (W8A8); `int8_weights`: weights alone (W8A16)."""
    smoothing: float | None = Field(default=None, ge=0, le=1)
    """`int8` only: strength of SmoothQuant; 0 rounds what is there; absent is 0.8, and 0 after [train.qat]."""
    examples: int = Field(default=64, ge=1)
    """Traces of the dataset over which activations are measured for it."""
    max_tokens: int = Field(default=2048, ge=8)
    """Of each of them."""
    ignore: list[str] = []
    """Linear layers that stay as they are besides the output: names, or patterns as compressed-tensors has them:
    "re:.*down_proj". Each has to be one's."""

    @model_validator(mode="after")
    def smooths_what_is_rounded(self) -> "Quantize":
        if self.scheme == "int8_weights" and self.smoothing:
            raise ValueError(
                f'smoothing = {self.smoothing} with scheme = "int8_weights": it is for activations, which are not rounded then; '
                'take it out, or take scheme = "int8"'
            )
        return self

    def strength(self, *, after_qat: bool) -> float:
        """Of the smoothing. Weights that were trained with rounding are rounded as they are, which they have learned."""
        if self.scheme != "int8" or (self.smoothing is None and after_qat):
            return 0.0
        return USUAL_SMOOTHING if self.smoothing is None else self.smoothing


class Qat(Section):
    """Quantisation-aware training: from a share of the steps on, weights and activations are rounded in the forward pass.

    For [quantize] with the same scheme. Weights are best float32 in it (train.dtype) and computed with in bfloat16
    (train.args.bf16): the steps of bfloat16 are as coarse as those of the integers.
    """

    start: float = Field(default=0.5, ge=0, lt=1)
    """Share of the steps after which it begins, with the last one at the latest; before it the training is the plain one."""
    scheme: Scheme = "int8"
    """As quantize.scheme, and the same."""
    ignore: list[str] = []
    """As quantize.ignore, and the same: what is served as it is learns no rounding."""
