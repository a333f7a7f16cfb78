"""Images resized to squares as in Diff-2-in-1's programs, compared with their numbers."""

import pytest
import torch

from twofold.image.square import map_resized_to_square, resized_to_square


def test_published_numbers_of_an_image():
    y, x = torch.meshgrid(torch.arange(480), torch.arange(640), indexing="ij")
    rgb = torch.stack([x * 255 // 639, y * 255 // 479, (x + y) % 256]).byte()
    canvas = resized_to_square(rgb.double() / 255) * 2 - 1
    assert canvas.dtype == torch.float64
    assert canvas.shape == (3, 512, 512)
    assert canvas.mean().item() == pytest.approx(-0.00094515, abs=1e-8)
    assert canvas[:, 100, 200].tolist() == pytest.approx([-0.22254902, -0.61004902, -0.31102941], abs=1e-8)


def test_published_number_of_pixels_that_stay_valid_and_nothing_of_the_border_in_them():
    rgb = torch.zeros(3, 480, 640, dtype=torch.uint8)
    rgb[:, 45:471, 41:601] = torch.tensor([200, 10, 90], dtype=torch.uint8)[:, None, None]
    normals, valid = map_resized_to_square(rgb.double() / 255 * 2 - 1, (rgb != 0).any(0, keepdim=True))
    assert valid.shape == (1, 512, 512)
    assert int(valid.sum()) == 202_491
    inside = normals[valid.expand(3, -1, -1)].reshape(3, -1)
    expected = torch.tensor([200, 10, 90], dtype=torch.float64) / 255 * 2 - 1
    torch.testing.assert_close(inside, expected[:, None].expand_as(inside), rtol=0, atol=1e-12)
    outside = normals[:, ~valid[0]]
    assert ((outside - expected[:, None]).abs().amax(0) > 1e-6).all() or outside.numel() == 0


def test_a_pixel_is_kept_where_all_that_is_read_for_it_is_known():
    """By hand: of 4 columns to 2, each reads two; of 4 to 8, each reads its own and a neighbour."""
    valid = torch.tensor([[[True, True, False, True]]]).expand(1, 4, 4)
    x = torch.arange(4.0).expand(1, 4, 4)
    small, keep = map_resized_to_square(x, valid, 2)
    assert small[0, 0].tolist() == [0.5, 2.5]
    assert keep[0, 0].tolist() == [True, False]
    _, keep = map_resized_to_square(x, valid, 8)
    assert keep[0, 0].tolist() == [True, True, True, False, False, False, False, True]


def test_it_is_a_stretch():
    x = torch.rand(2, 3, 6, 4)
    assert resized_to_square(x, 8).shape == (2, 3, 8, 8)
    assert torch.equal(resized_to_square(x[..., :4, :], 4), x[..., :4, :])
    assert resized_to_square(torch.full((3, 5, 9), 0.25), 4).eq(0.25).all()
