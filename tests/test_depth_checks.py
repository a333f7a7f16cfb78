"""Depth that is not in metres is refused when it is read, with a fix; depth in metres is read unchanged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.cli.main import run
from twofold.data import Folder, FolderError, FolderWriter, validate
from twofold.image import write_image
from twofold.sample import Sample

SIZE = (40, 60)
Z = np.linspace(1.013, 7.771, SIZE[0] * SIZE[1]).reshape(SIZE)  # a room
STREET = np.geomspace(2.013, 240.7, SIZE[0] * SIZE[1]).reshape(SIZE)


def folder(root: Path, array: np.ndarray, count: int = 1, **descriptor) -> Path:
    root.mkdir(exist_ok=True)
    name = "d.png" if descriptor.get("codec") == "png16" else "d.npy"
    if name == "d.png":
        Image.fromarray(array).save(root / name)
    else:
        np.save(root / name, array)
    write_image(root / "a.png", torch.rand(3, *array.shape))
    rows = [{"id": str(i), "file_name": "a.png", "targets": {"depth": {"path": name}}} for i in range(count)]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "dataset.json").write_text(json.dumps({"targets": {"depth": descriptor}}))
    return root


def fill_first(z: np.ndarray, value: float, share: float = 0.1) -> np.ndarray:
    """The map with this share of its pixels, the first ones, set to a value."""
    out = z.copy()
    out.reshape(-1)[: int(share * z.size)] = value
    return out


NOT_METRES: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "float millimetres": ((Z * 1000).astype(np.float32), {}, 'its median is .*Set "scale": 0.001'),
    "whole millimetres": (np.round(Z * 40).astype(np.float32), {}, 'whole numbers.*"scale": 0.001'),
    "double millimetres": (np.round(Z * 1000), {"scale": 1.0}, "median"),
    "millimetres of 16 bits": (np.round(Z * 1000).astype(np.uint16), {"scale": 1.0, "codec": "png16"}, "median"),
    "half millimetres": ((Z * 1000).astype(np.float16), {}, "median"),
    "metres scaled again": (Z.astype(np.float32), {"scale": 0.001}, 'nearer than .* Is "scale": 0.001'),
    "a plane at 1000 m": (fill_first(Z, 1000.0).astype(np.float32), {}, r"10\.0% of its pixels are exactly 1000 m"),
    "a plane behind a street": (fill_first(STREET * 3, 1000.0).astype(np.float32), {}, "exactly 1000 m"),
    "a plane at 250 m": (fill_first(Z, 250.0).astype(np.float32), {}, 'exactly 250 m.*"invalid"'),
    "1e10": (fill_first(Z, 1e10, 0.001).astype(np.float32), {}, r'2 pixels are up to 1e\+10 m.*"infinite"'),
    "the end of 16 bits": (
        fill_first(np.round(Z * 8000), 65535).astype(np.uint16),
        {"codec": "png16", "scale": 0.000125},
        "are 65535, the largest",
    ),
    "half floats that overflowed": (
        np.where(Z > 7, Z * 12000, Z * 5000).astype(np.float16),
        {"scale": 0.001},
        "half floats up to .* an overflow",
    ),
    "infinite half floats": (fill_first(Z, math.inf).astype(np.float16), {}, 'half floats are infinite.*"infinite"'),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_METRES)
def test_depth_that_is_not_in_metres_is_refused(name, tmp_path):
    array, descriptor, words = NOT_METRES[name]
    root = folder(tmp_path / "f", array, **descriptor)
    with pytest.raises(FolderError, match=words) as error:
        Folder(root)[0]
    assert "\n" not in str(error.value) and "/d." in str(error.value)
    report = validate(root)
    assert len(report.problems) == 1 and report.problems[0] == str(error.value)
    if "half floats" not in name:
        assert validate(folder(tmp_path / "f", array, **descriptor, valid_range=[0, 1e9])).ok


METRES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "a room": (Z.astype(np.float32), {}),
    "a street": (STREET.astype(np.float32), {}),
    "a room in half floats": (Z.astype(np.float16), {}),
    "millimetres with 'scale'": (np.round(Z * 1000).astype(np.uint16), {"codec": "png16", "scale": 0.001}),
    "float millimetres with 'scale'": ((Z * 1000).astype(np.float32), {"scale": 0.001}),
    "one depth everywhere": (np.full(SIZE, 120.0, np.float32), {}),
    "whole metres": (np.round(Z).astype(np.float32), {}),
    "sky": (fill_first(STREET, math.inf).astype(np.float32), {}),
    "half-precision sky with 'infinite'": (
        fill_first(STREET, math.inf).astype(np.float16),
        {"infinite": "inf"},
    ),
    "a plane with 'invalid'": (fill_first(Z, 1000.0).astype(np.float32), {"invalid": 1000}),
    "1e10 with 'infinite'": (fill_first(Z, 1e10).astype(np.float32), {"infinite": 1e10}),
    "a clipped sensor": (np.minimum(Z, 5.0).astype(np.float32), {}),
}


@pytest.mark.parametrize("name", METRES)
def test_depth_in_metres_is_read(name, tmp_path):
    array, descriptor = METRES[name]
    root = folder(tmp_path / "f", array, **descriptor)
    report = validate(root)
    assert report.ok, report.problems
    sample = Folder(root)[0]
    assert sample.valid["depth"].float().mean() >= 0.9


def test_depth_without_a_valid_pixel_is_reported(tmp_path):
    for value, words in (
        (0.0, "no valid pixel"),
        (math.nan, "no valid pixel"),
        (math.inf, "100% are infinite"),
    ):
        report = validate(folder(tmp_path / "f", np.full(SIZE, value, np.float32)))
        assert len(report.problems) == 1 and words in report.problems[0]


def test_report_has_percentiles_of_depth(tmp_path, capsys):
    outlier = fill_first(Z, 999.0, 1 / Z.size)
    root = folder(tmp_path / "f", outlier.astype(np.float32), count=3)
    facts = validate(root).targets["depth"]
    assert facts["most"] == 999 and facts["samples"] == 3
    for key, q in (("p2", 0.02), ("median", 0.5), ("p98", 0.98)):
        assert facts[key] == pytest.approx(float(np.quantile(Z, q)), abs=0.1)
    assert run(["data", "validate", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "98 %" in shown and f"{facts['p98']:.4g}" in shown


@pytest.mark.parametrize("codec", ["png16", "npy", "exr", "tiff"])
def test_sky_depth_round_trips_through_every_codec(codec, tmp_path):
    if codec == "exr":
        pytest.importorskip("OpenEXR")
    writer = FolderWriter(tmp_path / "f", {"name": "f", "targets": {"depth": {"codec": codec}}})
    z = torch.from_numpy(fill_first(Z, math.inf)).float()[None]
    writer.write(Sample(torch.rand(3, *SIZE), {"depth": z}, {"depth": z.isfinite()}, id="a"))
    writer.finish()
    sample = Folder(tmp_path / "f")[0]
    assert torch.equal(sample.targets["depth"].isinf(), z.isinf())
    assert torch.equal(sample.valid["depth"], z.isfinite())
