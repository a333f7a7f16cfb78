"""A large image costs memory for its numbers and few copies of them, whatever size the network works at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAM = """
import resource, sys, torch
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.predict.base import Painter
from twofold.tasks import TASKS
from pathlib import Path

class Stub(Painter):
    def paint(self, images, seeds):
        return images * 2 - 1, None

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
def test_a_large_image_takes_few_copies_of_its_floats(tmp_path: Path) -> None:
    edge = 2000
    Image.new("RGB", (64, 64), (10, 200, 90)).save(tmp_path / "small.png")
    Image.new("RGB", (edge, edge), (10, 200, 90)).save(tmp_path / "large.png")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    copies = int(done.stdout) * 1024 / (edge * edge * 3 * 4)
    assert copies < 6.5  # the image, its normals, what is being written; each takes a copy of its own
