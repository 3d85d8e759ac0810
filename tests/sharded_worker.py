"""One of the processes of test_clipping.py: python -m torch.distributed.run sharded_worker.py MODEL OUT ddp|fsdp2

FSDP2 is transformers' own, a model sharded as it is loaded; accelerate's, which training uses, is in test_distributed.py.
"""

import json
import os
import sys
from pathlib import Path

import tiny_model
import tiny_trainer
import torch
from transformers import AutoModelForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig

from r1distill.train.distill import DistillTrainer
from r1distill.train_sections import Clip, Train

CLIP = Clip(until=0.5, attention=0.05, mlp=0.1, head=10.0)
STEPS = 4


def main() -> None:
    student, folder, how = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    processes = int(os.environ["WORLD_SIZE"])
    arguments = tiny_trainer.settings(
        folder, max_steps=STEPS, learning_rate=0.1, max_grad_norm=0.5,
        per_device_train_batch_size=4 // processes, gradient_accumulation_steps=2, max_length=None,
    )  # fmt: skip
    shards = {"distributed_config": DistributedConfig(fsdp_size=processes)} if how == "fsdp2" else {}
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, **shards)
    trainer = DistillTrainer(
        settings=Train(student="tiny", clip=CLIP), model=model, args=arguments, processing_class=tiny_model.make_tokenizer(),
        train_dataset=tiny_trainer.of_columns(tiny_trainer.examples(model.config.vocab_size), "input_ids", "labels"),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder / "student"))
    if trainer.accelerator.is_main_process:
        kinds = sorted({type(parameter).__name__ for parameter in model.parameters()})
        (folder / "log.json").write_text(json.dumps({"parameters": kinds, "log": trainer.state.log_history}))


if __name__ == "__main__":
    main()
