#!/usr/bin/env bash
# Trains the embedded model's perception on one GPU for a limited time, out of one small file of data.
#
#   here:              python -m scripts.embedded.ship out PACK data.tar --limit-mib 55
#   on the GPU's side: scripts/gpu_train.sh data.tar OUT [SECONDS]
#
# OUT gets the checkpoint in files of at most 15 MiB each (checkpoint.tar.00, ...; cat them together), and log.jsonl.
#
# SECONDS   of training, decay included (default 660)
# DEVICE    cuda (default where there is one) or cpu
# BATCH     examples of 192x256 a step (default 96 on a GPU, 4 on a CPU)
# PYTHON    the interpreter (default python3); it needs torch, diffusers, transformers and twofold's other requirements
set -euo pipefail
data=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
seconds=${3:-660}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
device=${DEVICE:-$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
batch=${BATCH:-$([ "$device" = cuda ] && echo 96 || echo 4)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m scripts.embedded.ship in "$data" "$work/pack"
train=("$python" -m scripts.embedded.train "$work/run" --pack "$work/pack:1" --device "$device" --batch "$batch")
"${train[@]}" --seconds $((seconds * 3 / 4))
# The decay takes the last quarter: as many steps as fit at the rate that was reached, a tenth of them for the export.
steps=$("$python" - "$work/run" "$seconds" <<'PY'
import sys
from pathlib import Path
import torch
state = torch.load(Path(sys.argv[1]) / "state.pt", weights_only=True, mmap=True)
print(max(1, int(state["step"] / 3 * 0.9)))
PY
)
"${train[@]}" --decay "$steps"
"$python" -m scripts.embedded.export "$work/run" "$work/checkpoint"
cp "$work/run/log.jsonl" "$out/" 2>/dev/null || true
tar -C "$work" -cf - checkpoint | split -b 15M -d - "$out/checkpoint.tar."
ls -l "$out"
