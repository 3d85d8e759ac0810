"""`r1distill serve`: its settings reach vLLM and Ray as they are, and nothing outlives it."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import check_two_nodes
import httpx
import pytest
from small_run import assert_one_error_line, r1distill, recipe_file, small_run

from r1distill.errors import UserError
from r1distill.serve import node
from r1distill.serve.command import api_key, base_url, environment_of, generate_command
from r1distill.serve.key_guard import KeyGuard, digest_of
from r1distill.serve.teacher import flags, ray_configuration, server_command, teacher_of

KEY = "sk-serve-0123456789abcdef"
ENGINE = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "max_model_len": 32768}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(marked: str) -> list[int]:
    """The processes with `marked` in their environment, and all below them: vLLM's write their titles over theirs."""
    return [pid for pid in check_two_nodes.family(marked.encode()) if alive(pid)]


def test_vllm_reads_from_its_command_line_what_the_recipe_says(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = {
        "model": str(tmp_path), "served_model_name": "quickstart:teacher", "tensor_parallel_size": 8,
        "gpu_memory_utilization": 0.85, "dtype": "bfloat16", "enforce_eager": True, "enable_prefix_caching": False,
        "enable_chunked_prefill": False, "logprobs_mode": "raw_logprobs", "max_logprobs": 64, "revision": None,
        "override_generation_config": {"top_k": -1}, "hf_overrides": {"rope_parameters": {"rope_theta": 3e5}},
        "distributed_executor_backend": "ray", "disable_log_stats": True,
    }  # fmt: skip
    words = make_arg_parser(FlexibleArgumentParser()).parse_args(flags(arguments))
    assert words is not None
    parsed = AsyncEngineArgs.from_cli_args(words)
    expected = AsyncEngineArgs(**arguments)
    for name in arguments:
        found = getattr(parsed, name)
        assert (found[0] if isinstance(found, list) else found) == getattr(expected, name), name


def test_the_engine_has_raw_logprobs_prefix_caching_and_room_for_the_logprobs_asked_for(tmp_path: Path) -> None:
    recipe = small_run(tmp_path, teacher={"engine": ENGINE}, generate={"logprobs": 64}).recipe
    command = server_command(teacher_of(recipe, "/models/r1", False), recipe.serve)
    for word in (
        "--logprobs-mode=raw_logprobs",
        "--enable-prefix-caching",
        "--max-logprobs=64",
        "--max-model-len=32768",
    ):
        assert word in command
    assert "--model=/models/r1" in command
    assert "--served-model-name=teacher" in command  # what generate asks for is the recipe's name of it
    assert not any("distributed" in word for word in command)


def test_one_copy_over_nodes_is_vllms_ray_executor_and_several_are_ray_serve(tmp_path: Path) -> None:
    recipe = small_run(tmp_path, teacher={"engine": ENGINE}, serve={"ray": "head:6379"}).recipe
    teacher = teacher_of(recipe, "m", False)
    assert not teacher.takes_ray_serve
    assert "--distributed-executor-backend=ray" in server_command(teacher, recipe.serve)
    assert environment_of(recipe.serve, "")["RAY_ADDRESS"] == "head:6379"
    assert teacher.needs == "16 GPUs (tensor 8 × pipeline 2 × replicas 1)"
    copies = small_run(tmp_path, teacher={"engine": {"tensor_parallel_size": 4}}, serve={"ray": "auto", "replicas": 16})
    teacher = teacher_of(copies.recipe, "m", False)
    assert teacher.takes_ray_serve
    assert teacher.needs == "64 GPUs (tensor 4 × pipeline 1 × replicas 16)"
    config = ray_configuration(teacher, largest=8)
    assert config["placement_group_config"] == {"bundles": [{"GPU": 1}] * 4, "strategy": "STRICT_PACK"}
    assert config["deployment_config"]["num_replicas"] == 16
    assert ray_configuration(teacher, largest=2)["placement_group_config"]["strategy"] == "PACK"  # no node holds a copy


def test_a_key_is_in_the_environment_of_the_server_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVE_KEY", f" {KEY}\n")
    recipe = small_run(tmp_path, serve={"api_key_env": "SERVE_KEY", "ray": "auto"}).recipe
    teacher = teacher_of(recipe, "m", True)
    key = api_key(recipe.serve)
    assert environment_of(recipe.serve, key)["VLLM_API_KEY"] == KEY
    assert KEY not in " ".join(server_command(teacher, recipe.serve))
    assert KEY not in json.dumps(ray_configuration(teacher, 1))
    assert KEY not in generate_command("http://h:1/v1", recipe.serve, True, "r", [])
    # a key of vLLM's that the recipe does not speak of must not be asked for
    monkeypatch.setenv("VLLM_API_KEY", "another")
    monkeypatch.delenv("SERVE_KEY")
    assert "VLLM_API_KEY" not in environment_of(recipe.serve, "")
    with pytest.raises(UserError, match="SERVE_KEY: that variable is not set"):
        api_key(recipe.serve)


def test_the_guard_lets_only_the_key_through() -> None:
    async def app(scope: dict, receive: object, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    async def ask(**headers: str) -> int:
        guard = KeyGuard(app, digest_of(KEY.encode()))
        transport = httpx.ASGITransport(app=guard)  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return (await client.get("/v1/models", headers=headers)).status_code

    async def all_of_them() -> list[int]:
        keys = [f"Bearer {KEY}", f"bearer {KEY}", "", f"Bearer {KEY}x", KEY, "Bearer ", f"Basic {KEY}"]
        return [await ask(Authorization=key) for key in keys]

    assert asyncio.run(all_of_them()) == [200, 200, 401, 401, 401, 401, 401]


def test_the_printed_command_is_one_that_a_shell_takes(tmp_path: Path) -> None:
    recipe = small_run(tmp_path, serve={"host": "::", "port": 8011, "api_key_env": "K"}).recipe
    where = base_url(recipe.serve, "node-1")
    assert where == "http://node-1:8011/v1"
    command = generate_command(where, recipe.serve, True, "my recipe.toml", ["run_dir=a b"])
    assert shlex.split(command) == [
        "r1distill", "generate", "my recipe.toml", "run_dir=a b", "teacher.backend=server",
        'teacher.urls=["http://node-1:8011/v1"]', "teacher.api_key_env=K",
    ]  # fmt: skip
    assert base_url(small_run(tmp_path, serve={"host": "::1"}).recipe.serve, "node-1") == "http://[::1]:8000/v1"


def test_a_port_in_use_and_a_host_of_others_are_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"serve\.port = {port}: another program listens .* set another serve\.port"
        ):
            node.check_port("127.0.0.1", port)
    node.check_port("127.0.0.1", port)
    with pytest.raises(UserError, match=r"serve\.host = 203\.0\.113\.7: not an address of this machine"):
        node.check_port("203.0.113.7", 8000)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve.replicas=2"], ["serve.replicas = 2", "serve.ray=auto", "data_parallel_size=2"]),
        (["run_dir=/proc/run"], ["run_dir /proc/run", "choose another"]),
        (["serve.replicas=0"], ["serve.replicas = 0"]),
        (["serve.port=70000"], ["serve.port = 70000"]),
        (["serve.tensor_parallel_size=8"], ["serve.tensor_parallel_size", "[teacher.engine]"]),
        (["serve.api_key_env=NO_SUCH"], ["NO_SUCH", "not set"]),
        (["serve.replicas=2", "serve.ray=auto", "teacher.engine.data_parallel_size=2"], ["only one of them"]),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(tmp_path: Path, words: list[str], said: list[str]) -> None:
    assert_one_error_line(r1distill("serve", recipe_file(tmp_path), *words), *said)


def test_an_engine_argument_that_vllm_does_not_have_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    result = r1distill("serve", recipe_file(tmp_path), "teacher.engine.tensor_paralel_size=8", "--dry-run")
    assert_one_error_line(result, "teacher.engine.tensor_paralel_size", "tensor_parallel_size")


def test_a_ray_address_where_nothing_listens_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from r1distill.serve.cluster import check_address

    begun = time.monotonic()
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "head", "127.0.0.1:99999"):
        with pytest.raises(UserError, match=re.escape(f"serve.ray = {address}")):
            check_address(address)
    assert time.monotonic() - begun < 5


def test_a_copy_that_fits_on_a_node_is_not_spread_over_two() -> None:
    pytest.importorskip("ray")
    from r1distill.serve.cluster import Cluster

    def room(nodes: tuple[int, ...], devices: int) -> int:
        return Cluster("head", True, "GPU", nodes).room_for(devices)

    assert room((8, 8), 4) == 4
    assert room((8, 8), 16) == 1
    assert room((8, 8), 3) == 4  # two GPUs of each node are left over
    assert room((8, 4), 6) == 1
    assert room((), 1) == 0


def test_a_dry_run_prints_the_command_and_the_gpus_it_needs(tmp_path: Path) -> None:
    words = ["teacher.model=deepseek-ai/DeepSeek-R1", "teacher.engine.tensor_parallel_size=8", "serve.port=8011"]
    result = r1distill("serve", recipe_file(tmp_path), *words, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "tensor 8 × pipeline 1 × replicas 1" in result.stdout
    assert "--tensor-parallel-size=8" in result.stdout
    assert "--port=8011" in result.stdout
    assert "r1distill generate" in result.stdout
    assert not (tmp_path / "run").exists()


def test_the_exit_code_of_the_server_is_passed_on_with_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "serve.log"
    command = [sys.executable, "-c", "import sys; print('out of memory'); sys.exit(7)"]
    assert node.serve_here(command, dict(os.environ), "http://127.0.0.1:9/health", "serving", log) == 7
    said = capsys.readouterr().out
    assert "exit code 7 before it was ready" in said
    assert "out of memory" in said
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert node.serve_here(killed, dict(os.environ), "http://127.0.0.1:9/health", "serving", log) == 137


def test_a_server_that_will_not_end_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "STOP_S", 0.5)
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    begun = time.monotonic()
    node.end(child)
    assert time.monotonic() - begun < 5
    assert child.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


@pytest.mark.extended
def test_the_quickstart_teacher_is_served_sampled_with_the_printed_command_and_ends_on_sigterm(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    mark = f"R1DISTILL_TEST=serve-{os.getpid()}"
    environment = {**os.environ, "SERVE_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    environment[mark.partition("=")[0]] = mark.partition("=")[2]
    words = [f"run_dir={tmp_path / 'run'}", "problems.limit=3", f"serve.port={port}", "serve.api_key_env=SERVE_KEY"]
    command = [sys.executable, "-m", "r1distill", "serve", "quickstart", *words]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        line = next((line for line in server.stdout if line.startswith("serving ")), "")
        assert line.startswith(
            f"serving quickstart:teacher at http://127.0.0.1:{port}/v1 (asks for the key in SERVE_KEY)"
        )
        url = f"http://127.0.0.1:{port}/v1/models"
        assert httpx.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
        generate = shlex.split(line.partition("sample it with: ")[2])
        sampled = subprocess.run([sys.executable, "-m", *generate], env=environment, capture_output=True, text=True)
        assert sampled.returncode == 0, sampled.stderr
        record = json.loads((tmp_path / "run" / "stages" / "generate.json").read_text())
        assert record["counts"]["failed"] == 0
        assert record["counts"]["finish_reasons"]["stop"] >= 3
        processes = family(mark)
        assert len(processes) >= 4  # this command, its reaper, the server, its engine
        for pid in processes:
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        begun = time.monotonic()
        server.terminate()
        assert server.wait(20) == 143
        while any(map(alive, processes)) and time.monotonic() - begun < 15:
            time.sleep(0.1)
        assert not any(map(alive, processes))
        for path in (tmp_path / "run").rglob("*"):
            assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    finally:
        for pid in family(mark):
            os.kill(pid, signal.SIGKILL)
        server.wait()
