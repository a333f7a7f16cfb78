"""Files of Diff-2-in-1's own test program: squeezed, in 8 bits, red and blue exchanged, told apart by number."""

import json
import math

import pytest
import torch

from twofold.cli.main import run
from twofold.data.writer import FolderWriter
from twofold.image import write_image
from twofold.sample import Sample

H, W, EDGE = 24, 32, 64


def tilted(degrees: float, about: int) -> torch.Tensor:
    """A unit vector ``3 1 1`` in RUB, that far from the camera's direction, around x (0) or y (1)."""
    angle = math.radians(degrees)
    vector = [0.0, 0.0, math.cos(angle)]
    vector[1 - about] = math.sin(angle)
    return torch.tensor(vector).reshape(3, 1, 1)


@pytest.fixture
def place(tmp_path):
    """Three images whose normals all face the camera, and predictions that are 3, 13 and 40 degrees off."""
    writer = FolderWriter(tmp_path / "data", {"name": "test", "targets": {"normals": {}}})
    (tmp_path / "ab1").mkdir()
    for k, (degrees, about) in enumerate(((3, 0), (13, 1), (40, 0)), 1):
        known = torch.ones(1, H, W, dtype=torch.bool)
        image = torch.rand(3, H, W, generator=torch.Generator().manual_seed(k))
        truth = tilted(0, 0).expand(3, H, W)
        writer.write(Sample(image, {"normals": truth}, {"normals": known}, id=f"{k:06d}"))
        stored = tilted(degrees, about) * torch.tensor([-1.0, 1, 1]).reshape(3, 1, 1)  # x to the left
        write_image(tmp_path / "ab1" / f"sn_pred_{k}.png", ((stored + 1) / 2).expand(3, EDGE, EDGE).flip(0))
    writer.finish()
    return tmp_path


def command(place, *more: str) -> list[str]:
    data = [
        "--data",
        str(place / "data"),
        "--out",
        str(place / "report"),
        "--no-pictures",
        "--allow-synthetic",
    ]
    return ["evaluate", *data, "--predictions", str(place / "ab1"), *more]


def script() -> list[float]:
    """What its evaluation prints of these files, in closed form: bytes, a cosine, 180 / 3.14."""
    errors = []
    for degrees, about in ((3, 0), (13, 1), (40, 0)):
        vector = ((tilted(degrees, about) + 1) / 2 * 255).round() / 255 * 2 - 1
        errors.append(math.acos(float(vector[2] / vector.norm())) * 180 / 3.14)
    return errors


@pytest.mark.parametrize("first", [0, 1])
def test_its_own_files_are_scored_as_its_script_scores_them(place, capsys, first):
    if first == 0:
        for k in (1, 2, 3):
            (place / "ab1" / f"sn_pred_{k}.png").rename(place / "ab1" / f"sn_pred_{k - 1}.png")
    assert run(command(place, "--protocol", "normal/diff2in1-files", "--layout", "diff2in1")) == 0
    scores = json.loads((place / "report" / "report.json").read_text())["scores"]
    found = {name: value if isinstance(value, float) else value["value"] for name, value in scores.items()}
    errors = script()
    assert found["normals_mean_longer"] == pytest.approx(sum(errors) / 3, abs=2e-3)
    assert found["normals_median_longer"] == pytest.approx(errors[1], abs=2e-2)
    rmse = math.sqrt(sum(e * e for e in errors) / 3)
    assert found["normals_rmse_longer"] == pytest.approx(rmse, abs=2e-3)
    assert found["normals_below_11.25_longer"] == pytest.approx(100 / 3)
    assert found["normals_below_30_longer"] == pytest.approx(200 / 3)


def test_rounding_twice_other_shapes_and_missing_files_are_refused(place, capsys):
    layout = ("--layout", "diff2in1")
    assert run(command(place, "--protocol", "normal/diff2in1-script", *layout)) == 2
    assert "in 8 bits already" in capsys.readouterr().err
    assert run(command(place, "--protocol", "normal/diff2in1-files", *layout, "--frame", "LUB")) == 2
    assert "whose files are in LUB" in capsys.readouterr().err
    (place / "ab1" / "sn_pred_2.png").unlink()
    assert run(command(place, "--protocol", "normal/diff2in1-files", *layout)) == 2
    assert "one for each" in capsys.readouterr().err
