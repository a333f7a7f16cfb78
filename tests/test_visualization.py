"""Visualizations: in range, of the requested size, with invalid pixels marked."""

from __future__ import annotations

import math

import pytest
import torch

from twofold.visualization import UNKNOWN, color_depth, color_normals, scaled_depth, sheet, side_by_side


def test_near_is_red_and_far_is_blue():
    near, far = color_depth(torch.tensor([[[0.0, 1.0]]]))[:, 0].T
    assert near[0] > near[2] and far[2] > far[0]


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 1, 4, 5)])
def test_colours_keep_the_shape_and_the_range(shape):
    """What is beyond 0 and 1 has the colours of 0 and 1."""
    depth = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    color = color_depth(depth)
    assert color.shape == (*shape[:-3], 3, 4, 5) and color.dtype == torch.float32
    assert color.min() >= 0 and color.max() <= 1
    torch.testing.assert_close(color, color_depth(depth.clamp(0, 1)))
    one = color_depth(depth[..., :1, 2:3, 3:4])
    torch.testing.assert_close(color[..., :, 2:3, 3:4], one)


def test_the_sky_is_far_and_the_unknown_is_grey():
    depth = torch.tensor([[[math.inf, 1.0, math.nan, 0.5]]])
    color = color_depth(depth)
    assert torch.equal(color[..., 0], color[..., 1]) and (color[..., 2] == UNKNOWN).all()
    masked = color_depth(depth, torch.tensor([[[True, True, True, False]]]))
    assert (masked[..., 2:] == UNKNOWN).all()


def test_metres_are_scaled_by_what_is_valid():
    depth, valid = torch.linspace(2, 12, 101)[None, None], torch.ones(1, 1, 101, dtype=torch.bool)
    scaled = scaled_depth(depth, valid)
    assert scaled[..., 2].item() == pytest.approx(0) and scaled[..., 98].item() == pytest.approx(1)
    assert scaled_depth(torch.full((1, 1, 3), math.inf), torch.zeros(1, 1, 3, dtype=torch.bool)).isnan().all()


def test_a_wall_toward_the_viewer_is_light_blue_and_nothing_is_grey():
    n = torch.tensor([[0.0, 0, 1], [0, 0, 0]]).T[:, None]
    assert color_normals(n)[:, 0].T.tolist() == [[0.5, 0.5, 1], [UNKNOWN] * 3]
    assert (color_normals(n, torch.zeros(1, 1, 2, dtype=torch.bool)) == UNKNOWN).all()


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 channel"):
        color_depth(torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match="3 channels"):
        color_normals(torch.rand(1, 2, 2))
    with pytest.raises(ValueError, match="3 h w"):
        side_by_side([torch.rand(2, 4, 4)])


def test_a_sheet_has_every_image_at_its_position():
    images = [torch.full((3, 10, 20), 0.1 * i) for i in range(5)]
    page = sheet(images, columns=2, gap=3)
    assert page.shape == (3, 3 * 10 + 2 * 3, 2 * 20 + 3)
    assert torch.allclose(page[:, 13:23, 23:43], images[3]) and (page[:, 26:, 23:] == 1).all()


def test_a_sheet_with_titles_has_ink_above_the_images():
    page = sheet([torch.ones(3, 30, 60), torch.ones(1, 30, 60)], columns=1, titles=["depth"])
    title = (page.shape[1] - 2 * 30) // 2
    assert page.shape[0] == 3 and title > 8
    ink = [bool((page[:, row : row + title // 2] < 0.5).any()) for row in (0, page.shape[1] - 30 - title)]
    assert ink == [True, False]  # only the first has a title
    assert (page[:, -30:, :60] == 1).all()


def test_a_sheet_keeps_the_shape_of_every_image():
    page = sheet([torch.zeros(3, 10, 20), torch.zeros(3, 30, 30)], columns=1, gap=0)
    assert page.shape == (3, 20, 20)
    assert (page[:, 10:, 5:15] == 0).all() and (page[:, 10:, :5] == 1).all()


@pytest.mark.parametrize(("count", "columns", "titles"), [(0, 1, 0), (1, 0, 0), (1, 1, 2)])
def test_sheets_that_cannot_be_are_refused(count, columns, titles):
    with pytest.raises(ValueError, match="sheet"):
        sheet([torch.rand(3, 4, 4)] * count, columns, ["a"] * titles)


def test_images_side_by_side_have_one_height():
    row = side_by_side([torch.zeros(3, 10, 20), torch.zeros(1, 20, 20)], gap=2)
    assert row.shape == (3, 10, 20 + 2 + 10) and (row[:, :, 20:22] == 1).all()
    assert not row[:, :, :20].any() and not row[:, :, 22:].any()
    with pytest.raises(ValueError, match="no image"):
        side_by_side([])
