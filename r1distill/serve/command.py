"""The command: which server it is to be, what has to be right before it starts, and the line that says where it is."""

import importlib
import importlib.util
import json
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from r1distill.console import console, library_output_to, say
from r1distill.errors import UserError, require_packages
from r1distill.generate.engine_arguments import prepare_for_cpu
from r1distill.models import resolve_model
from r1distill.process import children_die_with_me
from r1distill.recipe import Recipe
from r1distill.run import Run
from r1distill.sections import Serve
from r1distill.serve.node import check_gpus, check_port, count_gpus, serve_here
from r1distill.serve.teacher import ray_configuration, server_command, teacher_of


def serve(run: Run, recipe_name: str, overrides: list[str]) -> int:
    """Serve until it is stopped. Returns the exit code of the server. Raises UserError for what the user can mend."""
    recipe, settings, log = run.recipe, run.recipe.serve, run.log("serve")
    check_settings(recipe)
    key = api_key(settings)
    require_packages("serve", "vllm")
    children_die_with_me()
    signal.signal(signal.SIGTERM, end_by_signal)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("a").close()
    except OSError as error:
        raise UserError(f"run_dir {run.folder}: cannot be written: {error.strerror}; choose another") from None
    with library_output_to(log):
        is_cpu = check_engine(recipe)
    teacher = teacher_of(recipe, resolve_model(recipe.teacher.model, "teacher.model"), is_cpu)

    def ready_line(machine: str) -> str:
        where = base_url(settings, machine)
        asks = f"asks for the key in {settings.api_key_env}" if key else f"no key: {settings.api_key_env} is not set"
        command = generate_command(where, settings, bool(key), recipe_name, overrides)
        return f"serving {teacher.name} at {where} ({asks}); sample it with: {command}"

    if settings.ray:
        require_packages("serve.ray", "ray")
        with library_output_to(log), console.status("serve: looking at the Ray cluster"):
            cluster = importlib.import_module("r1distill.serve.cluster").cluster_for(settings.ray, teacher)
        if teacher.takes_ray_serve:
            if cluster.head_is_here:
                check_port(settings.host, settings.port)
            with library_output_to(log):
                ray_llm = importlib.import_module("r1distill.serve.ray_llm")
            timeout_s = recipe.teacher.timeout_s
            return ray_llm.serve_on_ray(teacher, settings, cluster, key, timeout_s, ready_line(cluster.head), log)
    else:
        check_gpus(teacher)
        if is_cpu:
            prepare_for_cpu(teacher.arguments)
    check_port(settings.host, settings.port)
    health = base_url(settings, "127.0.0.1").replace("/v1", "/health")
    command = server_command(teacher, settings)
    return serve_here(command, environment_of(settings, key), health, ready_line(socket.gethostname()), log)


def show_serving(run: Run, recipe_name: str, overrides: list[str]) -> None:
    """`--dry-run`: the command or Ray Serve's configuration, and the GPUs it needs and finds. Starts nothing."""
    recipe, settings = run.recipe, run.recipe.serve
    check_settings(recipe)
    has_vllm = importlib.util.find_spec("vllm") is not None
    with library_output_to(Path(os.devnull)):
        is_cpu = has_vllm and check_engine(recipe)
    path = Path(recipe.teacher.model).expanduser()
    teacher = teacher_of(recipe, str(path.resolve()) if path.exists() else recipe.teacher.model, is_cpu)
    machine, largest = socket.gethostname(), None
    if settings.ray:
        require_packages("serve.ray", "ray")
        module = importlib.import_module("r1distill.serve.cluster")
        try:
            with library_output_to(Path(os.devnull)), module.connected(settings.ray):
                cluster = module.look(is_cpu)
            machine, largest = cluster.head, cluster.largest
            found = (
                f"{cluster.words()} of the Ray cluster at {settings.ray}, room for {cluster.room_for(teacher.devices)}"
            )
            found += f" of {teacher.replicas} replicas"
        except UserError as error:
            found = f"unknown: {error}"
    elif is_cpu:
        found = f"{len(os.sched_getaffinity(0))} CPUs of this node"
    else:
        found = f"{count_gpus()} GPUs of this node" if has_vllm else "unknown: vllm is not installed here"
    say(f"model    {teacher.name}")
    say(f"needs    {teacher.needs}")
    say(f"finds    {found}")
    if settings.ray and teacher.takes_ray_serve:
        say("serves   Ray Serve LLM with")
        say(json.dumps(ray_configuration(teacher, largest), indent=2))
    else:
        ray = f"RAY_ADDRESS={settings.ray} " if settings.ray else ""
        say(f"serves   {ray}{shlex.join(['python', *server_command(teacher, settings)[1:]])}")
    has_key = bool(key_in_environment(settings))
    where = base_url(settings, machine)
    say(f"at       {where}{f', asks for the key in {settings.api_key_env}' if has_key else ', without a key'}")
    say(f"sample   {generate_command(where, settings, has_key, recipe_name, overrides)}")


def check_settings(recipe: Recipe) -> None:
    """Raise UserError for settings that contradict each other."""
    replicas = recipe.serve.replicas
    if replicas == 1:
        return
    if not recipe.serve.ray:
        raise UserError(
            f"serve.replicas = {replicas}: without Ray there is 1; set serve.ray=auto (after `ray start --head`), "
            f"or, on this node alone, teacher.engine.data_parallel_size={replicas}"
        )
    if (size := recipe.teacher.engine.get("data_parallel_size") or 1) != 1:
        raise UserError(
            f"serve.replicas = {replicas} and teacher.engine.data_parallel_size = {size}: only one of them can be above 1; "
            "leave the latter out"
        )


def check_engine(recipe: Recipe) -> bool:
    """Raise UserError for an engine argument that vLLM does not have; returns whether vLLM runs on CPUs here."""
    engine = importlib.import_module("r1distill.generate.vllm_engine")
    engine.check_engine_arguments("teacher.engine", recipe.teacher.engine)
    return engine.current_platform.is_cpu()


def environment_of(settings: Serve, key: str) -> dict[str, str]:
    """Of vLLM's server. It asks for what VLLM_API_KEY holds, which must not come from anywhere else."""
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
    if key:
        environment["VLLM_API_KEY"] = key
    if settings.ray:
        environment["RAY_ADDRESS"] = settings.ray
    return environment


def end_by_signal(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that what was started is ended."""
    sys.exit(128 + number)


def generate_command(where: str, settings: Serve, has_key: bool, recipe_name: str, overrides: list[str]) -> str:
    words = ["r1distill", "generate", recipe_name, *overrides, "teacher.backend=server", f'teacher.urls=["{where}"]']
    if has_key:
        words.append(f"teacher.api_key_env={settings.api_key_env}")
    return shlex.join(words)


def base_url(settings: Serve, machine: str) -> str:
    """`machine` is what to write for a server that listens on all addresses."""
    host = machine if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/v1"


def key_in_environment(settings: Serve) -> str:
    return os.environ.get(settings.api_key_env, "").strip()


def api_key(settings: Serve) -> str:
    """The key that requests must bring, or "". Raises UserError where one was asked for by name and is not there."""
    key = key_in_environment(settings)
    if not key and "api_key_env" in settings.model_fields_set:
        raise UserError(
            f"serve.api_key_env = {settings.api_key_env}: that variable is not set; set it, or leave serve.api_key_env out"
        )
    if not (key.isascii() and key.isprintable()):  # as generate sees it
        raise UserError(f"the variable {settings.api_key_env} (serve.api_key_env) holds characters that no key has")
    return key
