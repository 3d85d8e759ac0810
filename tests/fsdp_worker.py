"""The training process under FSDP2 on CPUs with gloo, which accelerate leaves to GPUs though torch has it.

accelerate looks for FSDP's plugin only where the processes are of GPUs; these say that they are, and keep their CPU.
"""

import runpy

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

first_state = PartialState.__init__


def state_of_many(self: PartialState, *args: object, **kwargs: object) -> None:
    first_state(self, *args, **kwargs)  # type: ignore[arg-type]
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


PartialState.__init__ = state_of_many  # type: ignore[method-assign]

if __name__ == "__main__":
    runpy.run_module("r1distill.train.worker", run_name="__main__", alter_sys=False)
    assert not torch.distributed.is_initialized(), "a process that ends in its group can be aborted by gloo's threads"
