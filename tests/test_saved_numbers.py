"""Laws of saved predictions: what a PNG holds reads back as the map, in the unit that it and its row state."""

from __future__ import annotations

import json
import math

import pytest
import torch

from twofold.evaluate.predictions import decode_file
from twofold.image import ImageError, read_map
from twofold.image.quantize import quantization_of, read_quantized
from twofold.predict.base import BasePredictor
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.predict.prediction import METRIC_UNITS, SPACES, Prediction
from twofold.tasks import TASKS

SIZE = (30, 40)
IMAGE = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
RAMP = torch.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(1, *SIZE)


def affine(space: str = "depth") -> Prediction:
    return Prediction(TASKS[space], RAMP, IMAGE, space=space)


@pytest.mark.parametrize(("far", "level"), [(8.0, 0.001), (65.0, 0.001), (120.0, 0.01), (900.0, 0.1)])
def test_a_metric_depth_is_saved_in_millimetres_where_they_fit(far, level, tmp_path):
    metres = affine().in_space("depth", far - 0.3, 0.3)
    paths = metres.save(tmp_path, "a")
    assert paths["png"].name == "a_depth_metric.png"
    stored = read_map(paths["png"])
    torch.testing.assert_close(stored * level, metres.map, rtol=0, atol=level / 2 + 1e-5)
    back, how = read_quantized(paths["png"])
    assert how.scale == level and how.unit == "m" and how.offset == 0
    torch.testing.assert_close(back, metres.map, rtol=0, atol=level / 2 + 1e-5)
    assert metres.unit == metres.task.unit == "m"
    assert (
        metres.numbers["png"]["scale"] == level and metres.numbers["unit"] == "m" and metres.numbers["metric"]
    )
    torch.testing.assert_close(decode_file(paths["png"], "depth"), back)


def test_values_that_exceed_16_bits_are_reported(tmp_path):
    metres = affine().in_space("depth", 20_000.0, 1.0)
    paths = metres.save(tmp_path, "a")
    assert "png" not in paths and not (tmp_path / "a_depth_metric.png").exists()
    assert "png" not in metres.numbers
    torch.testing.assert_close(read_map(paths["npy"]), metres.map, rtol=0, atol=0)


def test_far_and_unknown_pixels_come_back_as_such(tmp_path):
    z = 1 + 9 * RAMP
    z[0, 0, :3] = torch.tensor([math.nan, math.inf, 1e6])
    paths = Prediction(TASKS["depth"], z, IMAGE, space="depth", metric=True).save(tmp_path, "a")
    back, _ = read_quantized(paths["png"])
    assert back[0, 0, 0].isnan() and back[0, 0, 1:3].isinf().all()
    torch.testing.assert_close(back[:, 1:], z[:, 1:], rtol=0, atol=5.1e-4)
    assert read_map(paths["png"])[0, 0, :3].tolist() == [0, 65535, 65535]


@pytest.mark.parametrize("space", SPACES)
def test_every_space_of_distances_survives_16_bits(space, tmp_path):
    metric = affine().in_space("depth", 79.7, 0.3).in_space(space)
    assert metric.unit == METRIC_UNITS[space]
    paths = metric.save(tmp_path, "a")
    assert paths["png"].name == f"a_{space}_metric.png"
    back, how = read_quantized(paths["png"])
    spread = float(metric.map.max() - metric.map.min())
    # 79.7 m need centimetres; the other spaces use all levels.
    error = 0.005 if space == "depth" else spread / 65533
    torch.testing.assert_close(back, metric.map, rtol=0, atol=error + 1e-6)
    assert how.unit == METRIC_UNITS[space]
    assert read_map(paths["png"]).unique().numel() > 100


@pytest.mark.parametrize("space", SPACES)
def test_maps_up_to_scale_and_shift_are_stored_as_before(space, tmp_path):
    paths = affine(space).save(tmp_path, "a")
    torch.testing.assert_close(read_map(paths["png"]) / 65535, RAMP, rtol=0, atol=0.51 / 65535)
    output = quantization_of(paths["png"])
    assert (
        output is not None and output.scale == pytest.approx(1 / 65535) and output.unit == TASKS[space].unit
    )
    torch.testing.assert_close(affine(space).color, TASKS[space].show(RAMP))


@pytest.mark.parametrize("name", ["depth", "mask", "matting"])
def test_a_map_beyond_0_to_1_is_not_clipped(name, tmp_path):
    """A user-defined network may predict in any range."""
    wide = RAMP * 7 - 3
    paths = Prediction(TASKS[name], wide, IMAGE, space=TASKS[name].space).save(tmp_path, "a")
    back, _ = read_quantized(paths["png"])
    torch.testing.assert_close(back, wide, rtol=0, atol=7 / 65533)
    bright = Prediction(TASKS["shading"], IMAGE * 3, IMAGE, space="linear").save(tmp_path, "b")
    assert "png" not in bright and torch.equal(read_map(bright["npy"]), IMAGE * 3)


def test_metric_previews_distinguish_near_and_far_in_every_space():
    near_far = affine().in_space("depth", 50.0, 1.0)
    for space in SPACES:
        color = near_far.in_space(space).color
        assert color.std() > 0.1, "one colour all over"
        # Near is red, far is blue: the first pixel is the nearest, in every space.
        assert color[0, 0, 0] > color[2, 0, 0] and color[2, -1, -1] > color[0, -1, -1], space
    # One pixel infinitely far, as a disparity of 0 is, must not take all the colours.
    outlier = near_far.map.clone()
    outlier[0, -1, -1] = 1e6
    color = Prediction(TASKS["depth"], outlier, IMAGE, space="depth", metric=True).color
    torch.testing.assert_close(color[:, :20], near_far.color[:, :20], rtol=0, atol=0.05)


def test_a_file_without_levels_is_refused(tmp_path):
    from twofold.image import write_map

    write_map(tmp_path / "a.png", RAMP * 1000)
    assert quantization_of(tmp_path / "a.png") is None
    with pytest.raises(ImageError, match="has no scale"):
        read_quantized(tmp_path / "a.png")
    write_map(tmp_path / "b.png", RAMP, text={"twofold": '{"scale": "x"}'})
    write_map(tmp_path / "c.png", RAMP, text={"twofold": "no JSON"})
    assert quantization_of(tmp_path / "b.png") is None and quantization_of(tmp_path / "c.png") is None
    with pytest.raises(ImageError, match="cannot store text"):
        write_map(tmp_path / "a.npy", RAMP, text={"a": "b"})


def test_the_row_of_a_prediction_describes_its_numbers(tmp_path):
    from twofold.image import write_image

    write_image(tmp_path / "a.png", IMAGE)
    metric = affine().in_space("depth", 8.0, 0.5)

    class Metric(BasePredictor):
        def predict_raw(self, inputs, index, seeds):
            return inputs.select(index), None

        def postprocess(self, outputs, image, metadata, uncertainty=None):
            return metric

    job = Job({"depth": Metric(TASKS["depth"])}, {"depth": {}}, tmp_path / "out")
    assert [row["status"] for row in predict_files(job, [Input(tmp_path / "a.png", "a")])] == ["done"]
    row = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    output = row["tasks"]["depth"]["numbers"]
    assert (output["space"], output["unit"], output["metric"]) == ("depth", "m", True)
    stored = read_map(tmp_path / "out" / row["tasks"]["depth"]["files"]["png"]["path"])
    back = stored * output["png"]["scale"] + output["png"]["offset"]
    torch.testing.assert_close(back, metric.map, rtol=0, atol=5.1e-4)


@pytest.mark.parametrize("space", ["depth", "disparity"])
def test_a_metric_map_does_not_replace_the_affine_one(space, tmp_path):
    first = affine(space)
    paths = first.save(tmp_path, "a")
    others = first.in_space(space, 8.0, 0.5).save(tmp_path, "a")
    assert not set(paths.values()) & set(others.values())
    torch.testing.assert_close(read_map(paths["npy"]), first.map, rtol=0, atol=0)
