"""vLLM alone, which the benches stand beside: all requests of a plan at once, nothing written and nothing judged."""

import json
import time
from collections.abc import Iterable
from typing import Any

from r1distill.generate.plan import Plan
from r1distill.models import resolve_model
from r1distill.prompting import encode_prompt, render
from r1distill.records import Problem


def sample_bare(plan: Plan, problems: Iterable[Problem], engine: dict[str, Any]) -> None:
    """In a process of its own: prints tokens and seconds of one call, without the start of the engine."""
    from vllm import LLM, SamplingParams  # noqa: PLC0415

    from r1distill.generate.engine_arguments import engine_arguments, prepare_for_cpu  # noqa: PLC0415

    sampling = plan.sampling
    arguments = engine_arguments(engine, sampling.logprobs)
    arguments.pop("enable_log_requests")
    prepare_for_cpu(arguments)
    llm = LLM(model=resolve_model(plan.model, "model"), **arguments)
    tokenizer = llm.get_tokenizer()
    prompts, parameters = [], []
    for problem in problems:
        ids = encode_prompt(tokenizer, render(tokenizer, plan.prompt.user_message(problem)), plan.prompt.prefill)
        for sample in range(plan.samples):
            prompts.append({"prompt_token_ids": ids})
            parameters.append(
                SamplingParams(
                    temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
                    max_tokens=sampling.max_tokens, logprobs=sampling.logprobs or None,
                    seed=plan.sample_seed(problem, sample, plan.request_sha(problem)), skip_special_tokens=False,
                    flat_logprobs=True,
                )
            )  # fmt: skip
    started = time.perf_counter()
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)
    # An LLM that lies in a cycle is not freed before the exit, which waits for its engine for ever
    llm.llm_engine.engine_core.shutdown()


def printed(output: str) -> dict[str, Any]:
    """What `sample_bare` printed; vLLM prints to the same place."""
    return json.loads([line for line in output.splitlines() if line.startswith('{"tokens"')][-1])
