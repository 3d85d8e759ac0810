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
from pathlib import Path
from typing import Any

from bare_vllm import printed, sample_bare

from r1distill.generate.backend import Sampling
from r1distill.generate.plan import Plan
from r1distill.problems import load_problems
from r1distill.prompting import load_prompt

PROBLEMS = "prompts/quickstart/train.jsonl"
PROMPT = "prompts/quickstart/prompt.txt"


def plan_of(options: argparse.Namespace, logprobs: int) -> Plan:
    sampling = Sampling(0.6, 0.95, 0, options.max_tokens, logprobs)
    return Plan(options.model, "", load_prompt(PROMPT, "<think>\n"), sampling, 0, options.samples, 0)


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
        engine = {**json.loads(options.engine), "max_num_seqs": options.concurrency}
        sample_bare(plan_of(options, options.bare), load_problems(PROBLEMS, limit=options.problems), engine)
        return
    print(f"{options.problems} problems x {options.samples} samples of {options.model}, {options.concurrency} at once")
    for logprobs in (0, 20):
        speeds: dict[str, list[float]] = {"bare vLLM": [], "r1distill": []}
        for _ in range(options.rounds):
            command = [sys.executable, __file__, *sys.argv[1:], "--bare", str(logprobs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for name, found in (
                ("bare vLLM", printed(done.stdout)),
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
