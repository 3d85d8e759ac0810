"""[train.hidden] and [train.attention]: what the student takes over of the teacher besides its distributions."""

from typing import Literal

from pydantic import Field, model_validator

from r1distill.section import Section

Layers = Literal["uniform", "last"] | dict[str, int]


class Inner(Section):
    """Of a teacher that runs in the training itself (`teacher`, or `train.kl.online`)."""

    teacher: str | None = None
    """Hub id or folder; absent is `train.kl.online`. It has the student's tokenizer."""
    weight: float = Field(default=1.0, gt=0)
    """What it is multiplied by in the loss."""
    layers: Layers = "uniform"
    """`uniform` spreads the layers over the teacher's, `last` pairs the last ones, or pairs: `{ "2" = 5, "4" = 11 }`, from 1."""
    count: int | None = Field(default=None, ge=1)
    """How many of the student's layers take part, the last ones or spread; absent is all, and for attention the last."""

    @model_validator(mode="after")
    def pairs_are_layers(self) -> "Inner":
        if isinstance(self.layers, dict):
            if self.count is not None:
                raise ValueError("count beside layers that are given one by one; take one of the two out")
            if not self.layers:
                raise ValueError('layers = {}: give pairs, "uniform" or "last"')
            for student, teacher in self.layers.items():
                if str(int(student) if student.isdecimal() else 0) != student or int(student) < 1 or teacher < 1:
                    raise ValueError(f'layers: "{student}" = {teacher}: numbers of layers, from 1')
        return self


class Hidden(Inner):
    """The student's hidden states after some of its layers are drawn to those of the teacher."""

    loss: Literal["cosine", "mse"] = "cosine"
    """Both on normalised states: 1 - cos, or the mean squared difference over the dimensions. Those of a last layer are behind
    the model's last norm, so pair it with the other's last."""


class Attention(Inner):
    """Whom the student's tokens attend to is drawn to the teacher's."""

    loss: Literal["maps", "relations"] = "relations"
    """`maps`: the attention itself, which takes attn_implementation = "eager"; `relations`: of queries, keys and values."""
    max_tokens: int = Field(default=512, ge=8)
    """The longest row whose maps are compared; of a longer one the relations, within parts of so many tokens."""
    heads: int | None = Field(default=None, ge=1)
    """Into how many relation heads the dimensions are divided; absent is the student's number of key-value heads."""
