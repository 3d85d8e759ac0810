"""What every vLLM engine of ours is given, in this process or behind a URL."""

import os
from typing import Any

CPU_KV_CACHE_GB = "2"  # vLLM on CPUs would otherwise take half of the machine's memory


def engine_arguments(engine: dict[str, Any], logprobs: int) -> dict[str, Any]:
    """The recipe's section `engine` has the last word. `logprobs` is the most that a request may ask for."""
    return {
        "enable_prefix_caching": True,
        # the logprobs of the model itself, not of the tempered, truncated distribution that was sampled from
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": max(20, logprobs),
        "enable_log_requests": False,
        **engine,
    }


def prepare_for_cpu(arguments: dict[str, Any]) -> None:
    """Settings without which vLLM on CPUs takes half the memory and two minutes more (measured: facts in README)."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GB)
    cores = sorted(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(len(cores)))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
    set_for_cpu(arguments)


def set_for_cpu(arguments: dict[str, Any]) -> None:
    """The engine arguments among them."""
    arguments.setdefault("enforce_eager", True)
    # vLLM 0.32 ends with "CPU Generator does not use offset" when the prompt of a seeded request is split over two steps
    arguments.setdefault("enable_chunked_prefill", False)
