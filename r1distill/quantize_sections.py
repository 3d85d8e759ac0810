"""[quantize] and [train.qat]: the student in eight bits."""

from typing import Literal

from pydantic import Field

from r1distill.section import Section

Scheme = Literal["int8", "int8_weights"]


class Quantize(Section):
    """The trained student as a checkpoint of 8-bit integers, in RUN/quantized. Embeddings and output layer stay as they are."""

    scheme: Scheme = "int8"
    """`int8`: weights by output channel, activations by token as they come (W8A8); `int8_weights`: weights alone (W8A16)."""


class Qat(Section):
    """Quantisation-aware training: from a share of the steps on, weights and activations are rounded in the forward pass."""

    start: float = Field(default=0.5, ge=0, lt=1)
    """Share of the steps after which it begins; before it the training is the plain one."""
    scheme: Scheme = "int8"
    """As in [quantize]."""
