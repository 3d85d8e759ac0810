"""A LoRA adapter is scored as it is: vLLM's replies with it are those of the model that it is merged into."""

from pathlib import Path
from typing import Any

import pytest
from small_run import r1distill, toml

from r1distill.prompting import encode_prompt, render
from r1distill.records import Problem, Trace
from r1distill.store import read_json, read_records

pytestmark = pytest.mark.extended
TOKENS = 16
RECIPE = """
run_dir = {run}
[eval]
tasks = ["quickstart"]
models = ["adapted"]
protocol = "greedy"
limit = 6
max_tokens = {tokens}
[eval.engine]
dtype = "float32"
max_model_len = 256
[eval.candidates.adapted]
model = {model}
adapter = {adapter}
"""


def test_an_adapter_replies_as_the_model_that_it_is_merged_into(tmp_path: Path, tiny_student: Path) -> None:
    run, adapter = tmp_path / "run", tmp_path / "adapter"
    reply_of = merged_with(adapter, tiny_student)
    recipe = tmp_path / "recipe.toml"
    paths = {"run": toml(str(run)), "model": toml(str(tiny_student)), "adapter": toml(str(adapter))}
    recipe.write_text(RECIPE.format(tokens=TOKENS, **paths))
    result = r1distill("eval", recipe, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    scored = run / "eval" / "quickstart" / "adapted"
    problems = {problem.id: problem for problem in read_records(scored / "problems.parquet", Problem)}
    traces = list(read_records(scored / "traces", Trace))
    assert len(traces) == 6
    for trace in traces:
        assert trace.token_ids == reply_of(problems[trace.problem_id], with_adapter=True)
        assert trace.token_ids != reply_of(problems[trace.problem_id], with_adapter=False)
    assert read_json(scored / "summary.json")["conditions"]["engine"]["adapter"] == str(adapter)


def merged_with(adapter: Path, folder: Path) -> Any:
    """Save an adapter that changes what the model says. Returns a function: the ids of a greedy reply by transformers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from r1distill.evaluate.protocols import asking_of
    from r1distill.evaluate.tasks import load_task

    torch.manual_seed(1)
    bare: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # not the default, where an adapter of no effect is made: both matrices are drawn
    peft: Any = get_peft_model(
        loaded, LoraConfig(r=12, lora_alpha=24, target_modules="all-linear", init_lora_weights=False)
    )
    peft.save_pretrained(str(adapter))
    merged = peft.merge_and_unload()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    prompt = asking_of(load_task("quickstart"), "greedy").prompt

    def reply_of(problem: Problem, *, with_adapter: bool) -> list[int]:
        rendered = render(tokenizer, prompt.user_message(problem), prompt.system)
        ids = torch.tensor([encode_prompt(tokenizer, rendered, prompt.prefill)])
        made = (merged if with_adapter else bare).generate(ids, max_new_tokens=TOKENS, do_sample=False)
        return made[0, ids.shape[1] :].tolist()

    return reply_of
