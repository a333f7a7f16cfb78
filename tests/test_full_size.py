"""The same code at full size: SD 2.1's architecture with random weights, in bfloat16, on a CPU."""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from twofold.backbones import new
from twofold.backbones.stable_diffusion import save_components
from twofold.image import write_image

NEEDED = 8 << 30
LIMIT = 6 << 30


def peak_of(command: list[str], cwd: Path) -> tuple[int, int]:
    """Runs a command; its exit code and the largest memory it held, in bytes."""
    child = subprocess.Popen(command, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seen = [0]

    def watch() -> None:
        while child.poll() is None:
            try:
                line = next(
                    x for x in Path(f"/proc/{child.pid}/status").read_text().splitlines() if "VmHWM" in x
                )
                seen[0] = max(seen[0], int(line.split()[1]) << 10)
            except (OSError, StopIteration):
                pass
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = child.wait()
    watcher.join()
    if not seen[0]:  # no /proc: the largest of all children so far
        unit = 1 if sys.platform == "darwin" else 1024
        seen[0] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return code, seen[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_size_genpercept_predicts_in_bfloat16_under_6_gb(tmp_path):
    """Its layout on the hub, its base beside it, through the command line."""
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip("needs 8 GB of disk for the random weights")
    net = new.sd21(dtype=torch.bfloat16)
    shape = CLIPTextConfig.from_dict(
        {**net.text_encoder.config.to_dict(), "num_hidden_layers": 23, "vocab_size": 49408}
    )
    net.text_encoder = CLIPTextModel(shape).bfloat16()  # as large as SD 2.1's own
    save_components(net, tmp_path / "base", torch.bfloat16)
    del net
    folder = tmp_path / "genpercept-depth"
    folder.mkdir()
    for part, name in (("unet", "unet_depth_v2"), ("vae", "vae")):
        (tmp_path / "base" / part).rename(folder / name)
    write_image(tmp_path / "photo.png", torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)))
    command = [
        sys.executable, "-W", "ignore", "-m", "twofold", "predict", "photo.png", "--model", str(folder),
        "--base", str(tmp_path / "base"), "--dtype", "bfloat16", "--size", "64", "--out", "out",
    ]  # fmt: skip
    code, peak = peak_of(command, tmp_path)
    assert code == 0
    depth = np.load(tmp_path / "out" / "photo_depth.npy")
    assert depth.shape == (48, 64)
    assert np.isfinite(depth).all()
    assert peak < LIMIT, f"{peak / 2**30:.2f} GB"
    print(f"peak memory {peak / 2**30:.2f} GB")
