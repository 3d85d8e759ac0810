#!/usr/bin/env bash
# Sets up .venv and runs every check: ruff, pyright, pytest.
#   scripts/test.sh [pytest options]                  e.g. scripts/test.sh -m "not slow" -x, or --cov
#   scripts/test.sh --extended                        with the checks that take minutes: kills, several processes and engines
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" quickstart ray dev
cd "$root"
export HF_HUB_OFFLINE=1
bin=$root/.venv/bin
"$bin/ruff" check
"$bin/ruff" format --check
"$bin/pyright" --pythonpath "$bin/python"
# three processes: a third of the time a test waits for a process of its own; a file stays in one of them, with its fixtures,
# and the files come in the order of tests/conftest.py: by the number of their tests, as xdist would, the longest are the last
"$bin/python" -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"
