"""A large image costs memory for its numbers and few copies of them, whatever size the network works at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.image import resize, write_map
from twofold.image.png import write_png
from twofold.image.resize import resize_levels
from twofold.image.rgb import as_float

PROGRAM = """
import resource, sys, torch
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.predict.base import BasePredictor
from twofold.tasks import TASKS
from pathlib import Path

class Stub(BasePredictor):
    def predict_raw(self, inputs, index, seeds):
        return inputs.select(index) * 2 - 1, None

def run(name):
    found = {t: Stub(TASKS[t]) for t in ("depth", "normals")}
    job = Job(found, {t: {} for t in found}, Path(sys.argv[1], "out"), size=64)
    (row,) = predict_files(job, [Input(Path(sys.argv[1], f"{name}.png"), name)])
    assert row["status"] == "done", row
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small = run("small")
print(run("large") - small)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in other units there")
def test_a_large_image_needs_few_float_copies(tmp_path: Path) -> None:
    edge = 3000
    Image.new("RGB", (64, 64), (10, 200, 90)).save(tmp_path / "small.png")
    Image.new("RGB", (edge, edge), (10, 200, 90)).save(tmp_path / "large.png")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    copies = int(done.stdout) * 1024 / (edge * edge * 3 * 4)
    assert (
        copies < 2.5
    )  # the image in 8 bits, its normals in 32, and bands of what is being computed and written


@pytest.mark.parametrize("size", [(31, 64), (200, 17), (90, 301)], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_levels_are_resized_band_by_band_to_the_numbers_of_the_whole(
    size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.image.bands._BAND_PIXELS", 1000)
    levels = torch.randint(0, 256, (channels, 150, 120), generator=torch.Generator().manual_seed(0))
    levels = levels.to(torch.uint8)
    assert torch.equal(resize_levels(levels, size), resize(as_float(levels), size))


@pytest.mark.parametrize("kind", ["grey", "rgb", "wide"])
def test_a_png_written_in_bands_equals_one_written_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (70, 90, 3) if kind == "rgb" else (70, 90)
    most, dtype = (65536, np.uint16) if kind == "wide" else (256, np.uint8)
    levels = np.random.default_rng(0).integers(0, most, shape, dtype=dtype)
    monkeypatch.setattr("twofold.image.png._PILLOW_PIXELS", 0)
    monkeypatch.setattr("twofold.image.bands._BAND_PIXELS", 1000)
    write_png(tmp_path / "a.png", lambda top, bottom: levels[top:bottom], (70, 90), {"key": "value"})
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.mode == {"grey": "L", "rgb": "RGB", "wide": "I;16"}[kind]
        assert image.info["key"] == "value"
        assert np.array_equal(np.asarray(image), levels)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_npy_written_in_bands_is_the_file_that_numpy_writes(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.image.bands._BAND_PIXELS", 1000)
    x = torch.randn(channels, 70, 90, generator=torch.Generator().manual_seed(0))
    write_map(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x[0].numpy() if channels == 1 else x.permute(1, 2, 0).contiguous().numpy())
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
