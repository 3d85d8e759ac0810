"""What a user installs: the wheel, without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small_run import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the built wheel was unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_an_installed_wheel_finds_its_recipes_prompts_tasks_and_problems_from_anywhere(
    installed: Path, tmp_path: Path
) -> None:
    for recipe in ("quickstart", "qwen2.5-math-7b"):
        result = subprocess.run(
            [sys.executable, "-P", "-m", "r1distill", "run", recipe, "--dry-run"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
        )
        assert result.returncode == 0, result.stderr
        assert f"recipe  {installed}" in result.stdout
        assert str(ROOT) not in result.stdout
    assert os.listdir(tmp_path) == []


def test_the_wheel_has_the_teachers_adapter_and_the_licence(installed: Path) -> None:
    adapter = installed / "r1distill" / "quickstart_teacher"
    assert (adapter / "PROVENANCE.md").exists()
    assert sum(file.stat().st_size for file in adapter.iterdir()) <= 12_000_000
    assert list(installed.glob("r1distill-*.dist-info/licenses/LICENSE"))


def test_the_wheel_has_the_style_and_the_scripts_of_the_report(installed: Path) -> None:
    folder = Path("r1distill", "report", "assets")
    assert {path.name for path in (installed / folder).iterdir()} == {path.name for path in (ROOT / folder).iterdir()}
