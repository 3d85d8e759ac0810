#!/usr/bin/env bash
# Sets up .venv and runs every check: ruff, pyright, pytest with coverage.
#   scripts/test.sh [pytest options]                  e.g. scripts/test.sh -m "not slow" -x
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" quickstart ray dev
cd "$root"
export HF_HUB_OFFLINE=1
bin=$root/.venv/bin
"$bin/ruff" check
"$bin/ruff" format --check
"$bin/pyright" --pythonpath "$bin/python"
"$bin/python" -m pytest --cov --cov-report=term "$@"
