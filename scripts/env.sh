#!/usr/bin/env bash
# Makes the environment the other commands run in, and does nothing when it is already made.
#
#   scripts/env.sh [EXTRAS]      EXTRAS as in pip: "", "test", "io,render"
#
# TWOFOLD_VENV       where it is made (default .venv beside pyproject.toml)
# TWOFOLD_INSTALLER  pip or uv (default: uv when it is on PATH; it is many times faster)
# PYTHON             the interpreter to make it from (default python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=${1:-}
venv=${TWOFOLD_VENV:-.venv}
python=${PYTHON:-python3}

digest() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])'; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "env.sh: $("$python" --version) is too old; twofold needs Python 3.11 or newer (set PYTHON=...)" >&2
    exit 2
}

# The stamp is named after everything that decides what is installed, so a change installs again.
key=$(cat pyproject.toml constraints.txt scripts/env.sh | digest)
stamp="$venv/.twofold-$key-${extras//,/-}"
[ -e "$stamp" ] && exit 0

target=.
[ -n "$extras" ] && target=".[$extras]"

installer=${TWOFOLD_INSTALLER:-}
[ -n "$installer" ] || { command -v uv >/dev/null && installer=uv || installer=pip; }

echo "env.sh: installing twofold${extras:+[$extras]} into $venv with $installer"
if [ "$installer" = uv ]; then
    # uv does not read pip's settings; a folder of wheels that pip is configured to use serves uv as well.
    links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}}
    links=$(echo "$links" | xargs | tr ' ' ',')
    if [ -n "$links" ]; then export UV_FIND_LINKS=$links; else unset UV_FIND_LINKS; fi
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
    uv pip install --quiet --compile-bytecode --python "$venv/bin/python" -c constraints.txt -e "$target"
else
    # An environment that uv made has no pip in it.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$target"
fi
rm -f "$venv"/.twofold-*-"${extras//,/-}"
touch "$stamp"
