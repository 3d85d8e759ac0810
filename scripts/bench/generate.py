"""Tokens a second of `r1distill generate` (journal, verification, entropy) beside bare `vllm.LLM.generate`.

    python scripts/bench/generate.py [--model quickstart:teacher] [--problems 40] [--samples 4] [--rounds 3]
                                     [--max_tokens 128] [--concurrency 64] [--engine '{"dtype": "float32"}']

The same prompts, seeds and sampling parameters, in turns on one machine, each in processes of its own. What is timed is
from the first request to the last reply, without the start of the engine. Bare vLLM is given all requests at once; it
writes nothing and checks nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from r1distill.generate.backend import Sampling
from r1distill.generate.plan import Plan
from r1distill.models import resolve_model
from r1distill.problems import load_problems
from r1distill.prompting import encode_prompt, load_prompt, render

PROBLEMS = "prompts/quickstart/train.jsonl"
PROMPT = "prompts/quickstart/prompt.txt"


def plan_of(options: argparse.Namespace, logprobs: int) -> Plan:
    sampling = Sampling(0.6, 0.95, 0, options.max_tokens, logprobs)
    return Plan(options.model, "", load_prompt(PROMPT, "<think>\n"), sampling, 0, options.samples, 0)


def bare(options: argparse.Namespace, logprobs: int) -> None:
    """In a process of its own: prints tokens and seconds of one call."""
    from vllm import LLM, SamplingParams  # noqa: PLC0415

    from r1distill.generate.engine_arguments import engine_arguments, prepare_for_cpu  # noqa: PLC0415

    arguments = engine_arguments(json.loads(options.engine), logprobs)
    arguments.pop("enable_log_requests")
    prepare_for_cpu(arguments)
    llm = LLM(model=resolve_model(options.model, "model"), max_num_seqs=options.concurrency, **arguments)
    tokenizer, plan = llm.get_tokenizer(), plan_of(options, logprobs)
    prompts, parameters = [], []
    for problem in load_problems(PROBLEMS, limit=options.problems):
        ids = encode_prompt(tokenizer, render(tokenizer, plan.prompt.user_message(problem)), plan.prompt.prefill)
        for sample in range(options.samples):
            prompts.append({"prompt_token_ids": ids})
            parameters.append(
                SamplingParams(
                    temperature=0.6, top_p=0.95, max_tokens=options.max_tokens, logprobs=logprobs or None,
                    seed=plan.sample_seed(problem, sample, plan.request_sha(problem)), skip_special_tokens=False,
                    flat_logprobs=True,
                )
            )  # fmt: skip
    started = time.perf_counter()
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


def ours(options: argparse.Namespace, logprobs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        engine = {**json.loads(options.engine), "max_num_seqs": options.concurrency}
        settings = {
            "run_dir": folder, "teacher.model": options.model, "problems.path": PROBLEMS,
            "problems.limit": options.problems, "generate.samples": options.samples, "generate.max_tokens": options.max_tokens,
            # so that every reply is verified as it ends, and none is spared
            "generate.stop_after_correct": options.samples,
            "generate.logprobs": logprobs, "generate.concurrency": options.concurrency,
            "generate.temperature": 0.6, "generate.top_p": 0.95,
        }  # fmt: skip
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        overrides += [f"teacher.engine.{key}={json.dumps(value)}" for key, value in engine.items()]
        command = [sys.executable, "-m", "r1distill", "generate", "quickstart", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        line = json.loads((Path(folder) / "logs" / "generate.jsonl").read_text().splitlines()[-1])
    return {"tokens": line["tokens_out"], "seconds": line["seconds"]}


def last_object(output: str) -> dict[str, Any]:
    """vLLM prints to the same place."""
    return json.loads([line for line in output.splitlines() if line.startswith('{"tokens"')][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quickstart:teacher")
    parser.add_argument("--problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_tokens", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--engine", default='{"dtype": "float32", "max_model_len": 512}')
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        bare(options, options.bare)
        return
    print(f"{options.problems} problems x {options.samples} samples of {options.model}, {options.concurrency} at once")
    for logprobs in (0, 20):
        speeds: dict[str, list[float]] = {"bare vLLM": [], "r1distill": []}
        for _ in range(options.rounds):
            command = [sys.executable, __file__, *sys.argv[1:], "--bare", str(logprobs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for name, found in (
                ("bare vLLM", last_object(done.stdout)),
                ("r1distill", ours(options, logprobs)),
            ):
                speeds[name].append(found["tokens"] / found["seconds"])
                print(f"  {name:10} {found['tokens']:8,} tokens {found['seconds']:7.1f} s", flush=True)
        middle = {name: statistics.median(found) for name, found in speeds.items()}
        print(
            f"logprobs = {logprobs:2}: bare vLLM {middle['bare vLLM']:,.0f} tokens/s, r1distill {middle['r1distill']:,.0f}: "
            f"{middle['r1distill'] / middle['bare vLLM']:.2f} of it"
        )


if __name__ == "__main__":
    main()
