#!/usr/bin/env bash
# Writes constraints.txt anew: one universal resolution of the package with all its extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
torch=${TORCH:-2.13.0}

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    "${PYTHON:-python3}" -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv=$tools/venv/bin/uv
fi
held=$(mktemp)
echo "torch==$torch" > "$held"
{
    echo "# Written by 'make lock'. Use it as constraints: pip install -c constraints.txt -e ."
    "$uv" pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 -c "$held" \
        --no-emit-package twofold --no-header --no-annotate --no-emit-index-url --no-emit-find-links
} > constraints.txt.new
rm -f "$held"
if grep -nE '\+cpu|\+cu|index-url|find-links|://' constraints.txt.new; then
    echo "lock.sh: the lines above name a local build or an address; constraints.txt is left as it was" >&2
    exit 1
fi
mv constraints.txt.new constraints.txt
