"""[prune]: what is taken out of the student before it is taught."""

import math
from typing import Literal

from pydantic import Field

from r1distill.section import Section


class Prune(Section):
    """Layers, channels and heads that matter least for the traces of the dataset; what is left is trained in their place.

    Shares are of what there is, and rounded to whole layers, channels and groups of heads. 0 takes out nothing.
    """

    depth: float = Field(default=0.0, ge=0, lt=1)
    """Share of the layers: those that change the hidden states least."""
    ffn: float = Field(default=0.0, ge=0, lt=1)
    """Share of the channels of every feed-forward layer."""
    heads: float = Field(default=0.0, ge=0, lt=1)
    """Share of the key-value heads of every layer, each with its query heads. A Qwen2 becomes a Llama by it, for vLLM."""
    score: Literal["l1", "l2"] = "l2"
    """Norm over tokens by which a channel or head is measured."""
    ffn_multiple: int = Field(default=1, ge=1)
    """Channels are kept in multiples of this, more rather than fewer; GPUs like 64 or 128."""
    contiguous: bool = False
    """Take out layers that follow each other."""
    examples: int = Field(default=64, ge=1)
    """Traces of the dataset over which is measured."""
    max_tokens: int = Field(default=2048, ge=8)
    """Of each of them."""

    def sizes(self, layers: int, channels: int, groups: int) -> tuple[int, int, int]:
        """How many stay of the layers, and in each of the feed-forward channels and key-value heads; at least one."""
        wanted = max(channels - round(self.ffn * channels), 1)
        return (
            max(layers - round(self.depth * layers), 1),
            min(math.ceil(wanted / self.ffn_multiple) * self.ffn_multiple, channels),
            max(groups - round(self.heads * groups), 1),
        )
