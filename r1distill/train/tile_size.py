"""How much of the logits the head has before it at once; without torch, so that `r1distill plan` can count it."""

from typing import NamedTuple


class TileSize(NamedTuple):
    tokens: int
    vocabulary: int


# 16 MB of logits. On idle cores MKL is up to 8 % faster with a quarter of it, on busy ones the fewer waits of the threads
# for each other gain more
CPU_TILE = TileSize(512, 8192)
# 268 MB: the product of a tile takes longer than the host to launch what belongs to it (0.2 TFLOP where H is 1,536), and
# beside the weights and gradients of a head of 152k tokens it is little
CUDA_TILE = TileSize(4096, 16384)
