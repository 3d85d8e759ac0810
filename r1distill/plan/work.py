"""What decides the memory of a training step, apart from the model: the work, and how it is laid over the devices."""

from dataclasses import dataclass
from typing import Literal

from r1distill.plan.models import Shape

Kind = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
NAMES = {
    "single": "one process",
    "ddp": "DDP",
    "zero1": "ZeRO-1",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
    "fsdp2": "FSDP2",
}


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA (https://arxiv.org/abs/2106.09685) on the named projections; `quantized`: the others in NF4 (QLoRA)."""

    rank: int
    targets: tuple[str, ...]
    quantized: bool = False
    double_quantized: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How the work is laid over processes. `sequence_parallel`: so many share a sequence (Ulysses)."""

    kind: Kind
    offload_optimizer: bool = False
    offload_weights: bool = False
    sequence_parallel: int = 1

    def __str__(self) -> str:
        name = NAMES[self.kind]
        if self.offload_weights:
            name += ", all on the CPU" if self.kind == "fsdp2" else ", weights and optimizer on the CPU"
        elif self.offload_optimizer:
            name += ", optimizer on the CPU"
        return name + (f", SP {self.sequence_parallel}" if self.sequence_parallel > 1 else "")


@dataclass(frozen=True, slots=True)
class Work:
    """A training step of one process. Tokens are of a micro-batch before sequence parallelism divides it."""

    sequences: int
    length: int  # tokens of a sequence, or of a pack
    accumulation: int
    dtype: Literal["bfloat16", "float32"]  # of the weights as they are loaded
    mixed: bool  # bfloat16 through autocast
    checkpointing: bool
    offload_activations: bool
    attention: str
    one_row: bool  # padding-free or packed: all sequences of the micro-batch one behind the other
    optimizer: str
    adapters: Adapters | None = None
    rows: int = 0  # entries of a token's distribution from the cache; 0 without one
    online: Shape | None = None  # the teacher beside the student
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


def trainable_parameters(shape: Shape, adapters: Adapters | None) -> int:
    """All of them, or with LoRA rank * (in + out) of each projection that has an adapter."""
    if adapters is None:
        return shape.parameters
    return shape.layers * sum(adapters.rank * sum(shape.linears[name]) for name in adapters.targets)


def layer_weights(shape: Shape) -> int:
    """Parameters of the projections of all layers: those that NF4 takes."""
    return shape.layers * sum(a * b for a, b in shape.linears.values())
