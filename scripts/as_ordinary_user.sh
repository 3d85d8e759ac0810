#!/usr/bin/env bash
# Runs a command as a user who is not root and owns nothing, e.g. the tests of the sandbox:
#   sudo scripts/as_ordinary_user.sh .venv/bin/python -m pytest tests/test_sandbox.py -p no:cacheprovider
# Where the interpreter or this checkout lie in a folder that only root may enter (/root), they are shown to the command
# in a mount namespace of its own; nothing on the machine changes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
user=${AS_USER:-12345}
if [ "$(id -u)" != 0 ]; then exec "$@"; fi
prefix=$("$root/.venv/bin/python" -c 'import sys; print(sys.base_prefix)')
home=$(mktemp -d)
chown "$user" "$home"
export root user prefix home
code=0
# shellcheck disable=SC2016  # the inner bash expands it
unshare -m bash -euo pipefail -c '
as_user() { setpriv --reuid "$user" --regid "$user" --clear-groups env HOME="$home" TMPDIR="$home" "$@"; }
needed=()
for path in "$root" "$prefix"; do as_user test -r "$path" -a -x "$path" 2>/dev/null || needed+=("$path"); done
if [ ${#needed[@]} -gt 0 ]; then
  stage=$(mktemp -d)
  mount -t tmpfs -o mode=755 tmpfs "$stage"
  for index in "${!needed[@]}"; do
    mkdir "$stage/$index"
    mount --bind "${needed[$index]}" "$stage/$index"
  done
  closed=()
  for path in "${needed[@]}"; do
    while as_user test ! -x "$(dirname "$path")" 2>/dev/null; do path=$(dirname "$path"); done
    closed+=("$path")
  done
  for path in $(printf "%s\n" "${closed[@]}" | sort -u); do
    if as_user test ! -x "$path" 2>/dev/null; then mount -t tmpfs -o mode=755 tmpfs "$path"; fi
  done
  for index in "${!needed[@]}"; do
    mkdir -p "${needed[$index]}"
    mount --bind "$stage/$index" "${needed[$index]}"
  done
fi
cd "$root"
as_user "$@"
' -- "$@" || code=$?
rm -rf "$home"
exit $code
