"""Masks and images: scores and visualization."""

import math

import pytest
import torch

from twofold.metrics import IMAGE_QUALITY, MASKS
from twofold.visualization import UNKNOWN, color_depth, color_disparity, color_image, color_mask

EVERY = {
    **{f"masks-{k}": m for k, m in MASKS.items()},
    **{f"image_quality-{k}": m for k, m in IMAGE_QUALITY.items()},
}


def line(*values):
    return torch.tensor(values, dtype=torch.float64)[None, None]


def score(metric, prediction, target, valid=None):
    valid = torch.ones_like(target[:1], dtype=torch.bool) if valid is None else valid
    return metric.compute(metric.measure(prediction, target, valid))


def test_a_mask_of_four_pixels():
    output, there = line(0.9, 0.6, 0.4, 0.0), line(1, 0, 1, 0)
    assert score(MASKS["iou"], output, there) == pytest.approx(1 / 3)
    assert score(MASKS["mae"], output, there) == pytest.approx((0.1 + 0.6 + 0.6 + 0) / 4)
    assert score(MASKS["mse"], output, there) == pytest.approx((0.01 + 0.36 + 0.36 + 0) / 4)


def test_an_empty_prediction_of_an_empty_mask_is_right():
    nothing = line(0, 0, 0)
    assert score(MASKS["iou"], nothing, nothing) == 1
    assert score(MASKS["iou"], line(0, 1, 0), nothing) == 0


def test_psnr_of_an_image():
    there = torch.rand(3, 4, 5, dtype=torch.float64)
    assert score(IMAGE_QUALITY["mse"], there + 0.1, there) == pytest.approx(0.01)
    assert score(IMAGE_QUALITY["psnr"], there + 0.1, there) == pytest.approx(20)
    assert score(IMAGE_QUALITY["psnr"], there, there) == pytest.approx(100)


@pytest.mark.parametrize("name", EVERY)
def test_scores_add_and_see_nothing_that_is_not_valid(name):
    metric, rng = EVERY[name], torch.Generator().manual_seed(0)
    channels = 1 if name.startswith("masks") else 3
    output, there = (torch.rand(4, channels, 6, 7, generator=rng, dtype=torch.float64) for _ in range(2))
    valid = torch.rand(4, 1, 6, 7, generator=rng) > 0.3
    valid[3] = False
    whole = metric.measure(output, there, valid)
    parts = sum(metric.measure(output[i], there[i], valid[i]) for i in range(4))
    torch.testing.assert_close(whole, parts)
    spoiled = torch.where(valid, output, math.nan)
    assert torch.equal(metric.measure(spoiled, there, valid), whole)
    assert whole[-1] == 1


def test_a_disparity_has_the_colours_of_its_depth():
    level = torch.tensor([[[0.0, 0.25, 1.0, math.nan]]])
    assert torch.equal(color_disparity(1 - level), color_depth(level))
    assert torch.equal(
        color_disparity(level, level < 0.5)[..., 1:3], color_depth(1 - level, level < 0.5)[..., 1:3]
    )


def test_foreground_is_white_and_the_unknown_is_grey():
    mask = torch.tensor([[[0.0, 1.0, 2.0, math.nan, 1.0]]])
    color = color_mask(mask, torch.tensor([[[True, True, True, True, False]]]))
    assert color[:, 0].T.tolist() == [[0] * 3, [1] * 3, [1] * 3, [UNKNOWN] * 3, [UNKNOWN] * 3]


def test_images_are_shown_unchanged_and_linear_light_as_srgb():
    image = torch.rand(2, 3, 4, 5)
    assert torch.equal(color_image(image), image)
    light = color_image(torch.tensor([0.0, 0.002, 0.2140, 1.0]).expand(3, 1, 4), linear=True)
    assert light[0, 0].tolist() == pytest.approx([0, 0.02584, 0.5, 1], abs=1e-4)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="a mask has 1 channel"):
        color_mask(torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match="an image has 3 channels"):
        color_image(torch.rand(1, 2, 2))
