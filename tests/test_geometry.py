"""Laws of cameras, frames, normals from depth, the affine fit, and samples."""

from __future__ import annotations

import math

import pytest
import torch

from twofold.geometry import (
    FRAMES,
    Camera,
    align_affine,
    convert_frame,
    normals_from_depth,
    unit,
    unproject,
)
from twofold.sample import Provenance, Sample, stack
from twofold.targets import TARGETS

CAMERA = Camera(60.0, 62.0, 31.0, 24.5, 64, 48)
ALL = torch.ones(3, dtype=torch.bool)


def plane_depth(normal: torch.Tensor, distance: float, camera: Camera) -> torch.Tensor:
    """Depth 1 h w of the plane n . x = -distance with an RDF normal that faces the camera."""
    return (-distance / (normal[:, None, None] * camera.rays()).sum(0))[None]


def vector(*xyz: float) -> torch.Tensor:
    return torch.tensor(xyz, dtype=torch.float64)[:, None, None]


def test_a_matrix_and_back_is_the_same_camera():
    assert Camera.from_matrix(CAMERA.matrix().tolist(), 64, 48) == CAMERA


def test_two_flips_are_none():
    assert CAMERA.flipped().flipped() == CAMERA


def test_resizing_and_its_inverse_give_the_same_camera():
    back = CAMERA.resized(128, 72).resized(64, 48)
    assert torch.allclose(back.matrix(), CAMERA.matrix(), atol=1e-12)


def test_resizing_keeps_the_field_of_view():
    # The rays through the outer edges of the image do not change.
    big = CAMERA.resized(192, 48)
    left = [(-0.5 - c.cx) / c.fx for c in (CAMERA, big)]
    right = [(c.width - 0.5 - c.cx) / c.fx for c in (CAMERA, big)]
    assert left[0] == pytest.approx(left[1]) and right[0] == pytest.approx(right[1])


def test_a_crop_sees_what_its_window_saw():
    window = CAMERA.cropped(10, 5, 20, 30)
    assert torch.allclose(window.rays(), CAMERA.rays()[:, 5:35, 10:30])


@pytest.mark.parametrize("numbers", [(0, 1, 0, 0, 4, 4), (1, -1, 0, 0, 4, 4), (1, 1, math.nan, 0, 4, 4)])
def test_an_impossible_camera_is_refused(numbers):
    with pytest.raises(ValueError, match="camera"):
        Camera(*numbers)


@pytest.mark.parametrize("matrix", [[[1, 0], [0, 1]], [[1, 2, 0], [0, 1, 0], [0, 0, 1]]])
def test_a_matrix_that_is_not_a_pinhole_is_refused(matrix):
    with pytest.raises(ValueError, match="intrinsic"):
        Camera.from_matrix(matrix, 4, 4)


TILTED = Camera.from_matrix([[60.0, 1.5, 31.0], [-0.4, 62.0, 24.5], [0.002, -0.001, 1.0]], 64, 48)


def test_a_tilted_camera_is_its_matrix_however_it_is_cut_resized_or_mirrored():
    rays = TILTED.rays()
    assert torch.equal(rays[2], torch.ones(48, 64, dtype=torch.float64))
    u, v, w = torch.einsum("ij,jhw->ihw", TILTED.matrix(), rays)
    grid = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    torch.testing.assert_close(torch.stack([v / w, u / w]), torch.stack(grid).double())
    torch.testing.assert_close(TILTED.cropped(10, 5, 20, 30).rays(), rays[:, 5:35, 10:30])
    turned = rays.flip(-1) * torch.tensor([-1.0, 1, 1], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(TILTED.flipped().rays(), turned)
    torch.testing.assert_close(TILTED.flipped().flipped().matrix(), TILTED.matrix())
    half = TILTED.resized(32, 24)
    # The centre of a half-sized pixel is the corner of four.
    u, v, w = half.matrix() @ half.rays()[:, 3, 7]
    corner = torch.linalg.inv(TILTED.matrix()) @ torch.tensor([14.5, 6.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(half.rays()[:, 3, 7], corner / corner[2])
    torch.testing.assert_close(half.resized(64, 48).matrix(), TILTED.matrix())
    with pytest.raises(ValueError, match="backwards"):
        Camera.from_matrix([[60.0, 0, 31], [0, 60, 24], [1.0, 0, 1]], 64, 48)


@pytest.mark.parametrize("source", FRAMES)
@pytest.mark.parametrize("target", FRAMES)
def test_a_frame_and_back_is_the_identity(source, target):
    n = torch.randn(2, 3, 4, 5)
    assert torch.equal(convert_frame(convert_frame(n, source, target), target, source), n)


def test_axes_of_frames_match_their_names():
    assert convert_frame(vector(0.6, 0, 0.8), "RUB", "LUB").flatten().tolist() == [-0.6, 0, 0.8]
    assert convert_frame(vector(0.6, 0, 0.8), "RUB", "RDF").flatten().tolist() == [0.6, 0, -0.8]
    # A wall at the right that faces left.
    assert convert_frame(vector(-1, 0, 0), "RUB", "LUB").flatten().tolist() == [1, 0, 0]


def test_an_unknown_frame_is_refused():
    with pytest.raises(ValueError, match="XYZ"):
        convert_frame(vector(0, 0, 1), "XYZ", "RUB")


def test_points_project_back_to_their_pixels():
    depth = torch.rand(2, 1, 48, 64, dtype=torch.float64) + 0.5
    points = unproject(depth, CAMERA)
    u = points[:, 0] / points[:, 2] * CAMERA.fx + CAMERA.cx
    v = points[:, 1] / points[:, 2] * CAMERA.fy + CAMERA.cy
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    assert torch.allclose(u, columns.double().expand(2, -1, -1), atol=1e-9)
    assert torch.allclose(v, rows.double().expand(2, -1, -1), atol=1e-9)
    assert torch.equal(points[:, 2:], depth)


def test_a_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match="resize"):
        unproject(torch.ones(1, 4, 4), CAMERA)


@pytest.mark.parametrize(
    ("normal", "expected"),
    [((0, 0, -1), (0, 0, 1)), ((0, -1, -0.3), (0, 1, 0.3)), ((0.5, 0.2, -1), (0.5, -0.2, 1))],
)
def test_normals_of_a_plane_are_its_own(normal, expected):
    n = unit(torch.tensor(normal, dtype=torch.float64), dim=0)
    depth = plane_depth(n, 2.0, CAMERA)
    known = depth > 0
    normals, valid = normals_from_depth(depth, CAMERA)
    assert valid.any() and not valid[~known].any()
    # Rows beside the horizon have a neighbour behind the camera, which is unknown.
    required = unit(torch.tensor(expected, dtype=torch.float64), dim=0)[:, None, None]
    assert torch.allclose(normals[:, valid[0]], required.expand_as(normals)[:, valid[0]], atol=1e-6)


def test_normals_face_the_camera_and_have_length_one():
    depth = 2 + torch.rand(1, 48, 64, dtype=torch.float64)
    depth[:, 10:20, 10:20] = math.nan
    depth[:, 30:, :5] = math.inf
    normals, valid = normals_from_depth(depth, CAMERA)
    points = convert_frame(unproject(torch.where(valid, depth, 1.0), CAMERA), "RDF", "RUB")
    assert ((normals * points).sum(0)[valid[0]] <= 1e-9).all()
    assert torch.allclose(normals.norm(dim=0)[valid[0]], torch.ones((), dtype=torch.float64))
    assert (normals[:, ~valid[0]] == 0).all()
    assert not valid[:, 10:20, 10:20].any() and not valid[:, 30:, :5].any()


def test_an_edge_spoils_neither_of_its_surfaces():
    depth = torch.full((1, 48, 64), 4.0, dtype=torch.float64)
    depth[:, 12:36, 16:48] = 2.0
    normals, valid = normals_from_depth(depth, CAMERA)
    assert valid.all()
    assert torch.allclose(normals, vector(0, 0, 1).expand_as(normals), atol=1e-9)


def test_flipping_an_image_negates_x_of_its_normals():
    depth = 2 + torch.rand(1, 48, 64, dtype=torch.float64) * 0.01
    normals, valid = normals_from_depth(depth, CAMERA)
    mirrored, valid2 = normals_from_depth(depth.flip(-1), CAMERA.flipped())
    assert torch.equal(valid2.flip(-1), valid)
    assert torch.allclose(mirrored.flip(-1) * vector(-1, 1, 1), normals, atol=1e-6)


def test_unit_of_zero_is_zero_with_a_finite_gradient():
    x = torch.zeros(3, 2, 2, requires_grad=True)
    unit(x).sum().backward()
    assert (unit(x) == 0).all() and x.grad is not None
    # Lengths below 1e-12 are taken for 1e-12.
    torch.testing.assert_close(x.grad, torch.full_like(x, 1e12))


def test_the_affine_fit_of_hand_checked_numbers():
    d = torch.tensor([1.0, 2, 4])
    assert align_affine(torch.tensor([0.0, 1, 2]), d, ALL) == pytest.approx((1.5, 5 / 6))
    assert align_affine(torch.tensor([3.0, 2, 1.5]), d, ALL) == pytest.approx((-13 / 7, 6.357142857))


def test_a_constant_prediction_gets_the_fit_of_least_norm():
    fit = align_affine(torch.tensor([2.0, 2, 2]), torch.tensor([1.0, 2, 4]), ALL)
    assert fit == pytest.approx((14 / 15, 7 / 15))


def test_the_fit_agrees_with_lstsq_and_its_residual_is_orthogonal():
    p, d = torch.randn(1, 20, 20, dtype=torch.float64), torch.rand(1, 20, 20, dtype=torch.float64)
    valid = torch.rand(1, 20, 20) > 0.3
    scale, shift = align_affine(p, d, valid)
    table = torch.stack([p[valid], torch.ones_like(p[valid])], 1)
    oracle = torch.linalg.lstsq(table, d[valid][:, None]).solution.flatten()
    assert (scale, shift) == pytest.approx(tuple(oracle.tolist()), abs=1e-10)
    residual = scale * p[valid] + shift - d[valid]
    assert abs(residual.sum()) < 1e-9 and abs((residual * p[valid]).sum()) < 1e-9


def test_invalid_pixels_never_matter_to_the_fit():
    p, d = torch.rand(1, 8, 8), torch.rand(1, 8, 8)
    valid = torch.rand(1, 8, 8) > 0.5
    fit = align_affine(p, d, valid)
    for junk in (math.nan, math.inf, -1.0):
        assert align_affine(torch.where(valid, p, junk), torch.where(valid, d, junk), valid) == fit


def test_a_fit_without_pixels_or_with_nan_is_refused():
    d = torch.tensor([1.0, 2, 4])
    with pytest.raises(ValueError, match="no valid pixel"):
        align_affine(d, d, ~ALL)
    with pytest.raises(ValueError, match="NaN"):
        align_affine(torch.tensor([1.0, math.nan, 2]), d, ALL)


def a_sample(id: str, **targets: torch.Tensor) -> Sample:
    valid = {name: torch.ones(1, 4, 6, dtype=torch.bool) for name in targets}
    return Sample(torch.rand(3, 4, 6), targets, valid, id=id)


def test_a_stack_fills_what_is_missing_with_invalid_zeros():
    batch = stack([a_sample("a", depth=torch.ones(1, 4, 6)), a_sample("b", normals=torch.ones(3, 4, 6))])
    assert batch.image.shape == (2, 3, 4, 6) and batch.id == ("a", "b")
    assert batch.valid["depth"].flatten(1).all(1).tolist() == [True, False]
    assert batch.valid["normals"].flatten(1).any(1).tolist() == [False, True]
    assert (batch.targets["depth"][1] == 0).all()
    assert batch.to("cpu").id == batch.id


def test_stacks_of_nothing_or_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        stack([])
    with pytest.raises(ValueError, match="size"):
        stack([a_sample("a"), Sample(torch.rand(3, 5, 6))])


def test_a_sample_whose_parts_do_not_fit_is_refused():
    image, mask = torch.rand(3, 4, 6), torch.ones(1, 4, 6, dtype=torch.bool)
    for targets, valid in (
        ({"depth": torch.ones(1, 4, 5)}, {"depth": mask}),
        ({"depth": torch.ones(3, 4, 6)}, {"depth": mask}),
        ({"depth": torch.ones(1, 4, 6)}, {}),
        ({"depth": torch.ones(1, 4, 6)}, {"depth": mask.float()}),
    ):
        with pytest.raises(ValueError, match="depth"):
            Sample(image, targets, valid)
    with pytest.raises(ValueError, match="image"):
        Sample(torch.rand(4, 4, 6))
    with pytest.raises(ValueError, match="origin"):
        Provenance("guessed")  # ty: ignore[invalid-argument-type]


def test_every_target_has_channels_a_unit_and_a_description():
    joints = 17
    assert all(t.channels in (1, 3, joints) and t.unit and t.description for t in TARGETS.values())
