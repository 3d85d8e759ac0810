"""Generation against servers that fail, killed again and again: the shortened scripts/check_faults.py."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_killed_runs_against_failing_servers_end_with_the_samples_of_an_undisturbed_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check_faults.py"), "--kills", "4", "--problems", "60"]
    done = subprocess.run([*command, "--folder", str(tmp_path / "f")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "the same"
