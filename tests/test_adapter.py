"""A LoRA adapter is scored as it is: vLLM's replies with it are those of the model that it is merged into."""

from pathlib import Path
from typing import Any

import pytest
from small_run import r1distill, toml

from r1distill.records import Trace
from r1distill.store import read_json, read_records

pytestmark = pytest.mark.slow
RECIPE = """
run_dir = {run}
[eval]
tasks = ["quickstart"]
models = ["merged", "adapter", "bare"]
limit = 6
samples = 2
max_tokens = 24
[eval.engine]
dtype = "float32"
max_model_len = 256
[eval.candidates.bare]
model = {bare}
[eval.candidates.merged]
model = {merged}
[eval.candidates.adapter]
model = {bare}
adapter = {adapter}
"""


def test_an_adapter_replies_as_the_model_that_it_is_merged_into(tmp_path: Path, tiny_student: Path) -> None:
    folders = adapted(tiny_student, tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(run=toml(str(tmp_path / "run")), bare=toml(str(tiny_student)), **folders))
    result = r1distill("eval", recipe, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    scored = tmp_path / "run" / "eval" / "quickstart"
    texts = {name: texts_of(scored / name) for name in ("merged", "adapter", "bare")}
    assert len(texts["merged"]) == 12
    assert texts["adapter"] == texts["merged"]
    assert texts["bare"] != texts["merged"]
    engine = read_json(scored / "adapter" / "summary.json")["conditions"]["engine"]
    assert engine["adapter"] == str(tmp_path / "adapter")


def adapted(model: Path, folder: Path) -> dict[str, str]:
    """An adapter that changes what the model says, and the model with it merged in."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    # not the default, where an adapter of no effect is made: both matrices are drawn
    peft: Any = get_peft_model(
        loaded, LoraConfig(r=12, lora_alpha=24, target_modules="all-linear", init_lora_weights=False)
    )
    peft.save_pretrained(str(folder / "adapter"))
    merged = peft.merge_and_unload()
    merged.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "merged")
    return {"adapter": toml(str(folder / "adapter")), "merged": toml(str(folder / "merged"))}


def texts_of(folder: Path) -> dict[tuple[str, int], str]:
    return {(trace.problem_id, trace.sample): trace.text for trace in read_records(folder / "traces", Trace)}
