"""Depth predictions that are upside down or in another space: least squares hides it, the report warns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scored import scored, stored
from twofold.cli.main import run as command
from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.evaluate import get_eval_protocol, score
from twofold.evaluate.alignment_checks import fit_diagnostics, fitted_scale
from twofold.predict.base import BasePredictor
from twofold.predict.prediction import SPACES, Prediction
from twofold.sample import Provenance, Sample
from twofold.tasks import TASKS

PROTOCOLS = {
    "depth": "depth/marigold-ls", "disparity": "depth/marigold-ls-disp", "sqrt_disparity": "depth/ls-sqrt-disp",
    "log_depth": "depth/ls-log",
}  # fmt: skip
IN_SPACE = {
    "depth": lambda d: d,
    "disparity": lambda d: 1 / d,
    "sqrt_disparity": lambda d: d**-0.5,
    "log_depth": torch.log,
}
COUNT, SIZE = 4, 32


def scene(seed: int) -> Sample:
    """Depth from 1 to 20 m, each factor as often as any other, some of it unknown."""
    rng = torch.Generator().manual_seed(seed)
    depth = 20 ** torch.rand(1, SIZE, SIZE, generator=rng)
    known = torch.rand(1, SIZE, SIZE, generator=rng) > 0.1
    return Sample(
        torch.rand(3, SIZE, SIZE, generator=rng), {"depth": torch.where(known, depth, 0.0)}, {"depth": known},
        id=f"scene-{seed}", origin=Provenance("real"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    writer = FolderWriter(
        tmp_path_factory.mktemp("wide") / "data", {"name": "wide", "targets": {"depth": {"codec": "npy"}}}
    )
    for seed in range(COUNT):
        writer.write(scene(seed))
    writer.finish()
    return writer.root


def predicted(one: Sample, space: str, noise: float = 0.02) -> torch.Tensor:
    """A good prediction in a space, up to a scale and shift of its own."""
    rng = torch.Generator().manual_seed(len(str(one.id)))
    depth = torch.where(one.valid["depth"], one.targets["depth"], 1.0)
    depth = depth * (1 + noise * torch.randn(depth.shape, generator=rng))
    found = IN_SPACE[space](depth)
    return 0.1 + 0.8 * (found - found.min()) / (found.max() - found.min())


def warnings(data: Path, out: Path, protocol: str, make: Any) -> list[str]:
    root = out / "predictions"
    for one in Folder(data):
        stored(root, str(one.id), make(one))
    return scored(data, root, get_eval_protocol(protocol), out / "evaluation")["warnings"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("scored_as", SPACES)
def test_another_space_is_suspected_where_it_is_another(
    space: str, scored_as: str, data: Path, tmp_path: Path
) -> None:
    found = warnings(data, tmp_path, PROTOCOLS[scored_as], lambda one: predicted(one, space))
    if space == scored_as:
        assert found == []
        return
    name = space.replace("_", " ")
    assert sum(f"fitted as {name} the predictions have" in line for line in found) == 1
    # Depth and its logarithm rise with distance, the other two fall.
    rises = {"depth", "log_depth"}
    exchanged = (space in rises) != (scored_as in rises)
    assert sum(f"negative in {COUNT} of {COUNT} images" in line for line in found) == exchanged
    assert len(found) == 1 + exchanged


@pytest.mark.parametrize("space", SPACES)
def test_near_and_far_exchanged_is_warned_about(space: str, data: Path, tmp_path: Path) -> None:
    """The scores are those of the right predictions: they differ in the sign of the fit only."""
    found = warnings(data, tmp_path, PROTOCOLS[space], lambda one: 1 - predicted(one, space))
    assert len(found) == 1
    assert f"negative in {COUNT} of {COUNT} images" in found[0] and "inverted" in found[0]


@pytest.mark.parametrize("protocol", ["depth/marigold-ls", "depth/scale", "depth/median"])
def test_negated_metres_are_warned_about(protocol: str, data: Path, tmp_path: Path) -> None:
    negated = warnings(data, tmp_path / "negated", protocol, lambda one: -one.targets["depth"])
    assert any("inverted" in line for line in negated)
    assert warnings(data, tmp_path / "right", protocol, lambda one: one.targets["depth"]) == []


def test_one_exchanged_image_is_counted(data: Path, tmp_path: Path) -> None:
    found = warnings(
        data, tmp_path, "depth/marigold-ls",
        lambda one: (-1 if one.id == "scene-2" else 1) * predicted(one, "depth"),
    )  # fmt: skip
    assert len(found) == 1 and f"negative in 1 of {COUNT} images" in found[0]
    rows = [
        json.loads(line) for line in (tmp_path / "evaluation" / "rows.jsonl").read_text().splitlines()[1:]
    ]
    assert [row["fit"]["scale"] < 0 for row in rows] == [row["id"] == "scene-2" for row in rows]


def test_metric_protocols_fit_nothing(data: Path, tmp_path: Path) -> None:
    assert warnings(data, tmp_path, "depth/vpd-metric", lambda one: one.targets["depth"]) == []
    one = Folder(data)[0]
    assert fit_diagnostics(one.targets["depth"], one, get_eval_protocol("depth/vpd-metric")) == {}


def test_the_terminal_prints_the_warnings(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "inverse"
    for one in Folder(data):
        stored(root, str(one.id), predicted(one, "disparity"))
    command([
        "evaluate", "--predictions", str(root), "--data", str(data), "--protocol", "depth/marigold-ls",
        "--out", str(tmp_path / "out"), "--no-images",
    ])  # fmt: skip
    output = " ".join(capsys.readouterr().out.split())
    assert "warning: the scale fitted to depth is negative in 4 of 4 images" in output
    assert "warning: fitted as disparity the predictions have" in output
    assert "inverted" in (tmp_path / "out" / "report.md").read_text()


def test_the_fitted_scale_is_that_of_least_squares() -> None:
    d = torch.tensor([1.0, 2.0, 4.0, 9.0])[None, None]
    known = torch.tensor([True, True, True, False])[None, None]
    for space, to in IN_SPACE.items():
        p = (to(d) - 0.25) / 3
        p[..., 3] = torch.nan
        assert fitted_scale(p, d, known, space) == pytest.approx(3)
        assert fitted_scale(1 - p, d, known, space) == pytest.approx(-3)
    assert fitted_scale(torch.full_like(d, -2.0), d, known, "depth") == 0


@pytest.mark.parametrize("name", ["depth", "disparity"])
def test_validation_counts_exchanged_images(name: str, data: Path) -> None:
    samples = list(Folder(data))

    def predictor(wrong: set[str]) -> Any:
        by_image = {s.image.numpy().tobytes(): s for s in samples}

        class Known(BasePredictor):
            def predict_raw(self, inputs, index, seeds):
                return inputs.select(index), None

            def postprocess(self, outputs, image, metadata, uncertainty=None):
                one = by_image[image.numpy().tobytes()]
                map = predicted(one, name)
                return Prediction(self.task, 1 - map if one.id in wrong else map, image)

        return Known(TASKS[name])

    right = score([predictor(set())], samples)
    assert set(right) == {f"{name}/{m.name}" for m in TASKS[name].metrics}
    wrong = score([predictor({"scene-1"})], samples)
    assert wrong[f"{name}/negative_scale"] == 1 / COUNT
