"""GenPercept's deviations: present with compat only, with the numbers of the original code where there are any."""

import math

import pytest
import torch

from test_losses import plane, published
from twofold.compat import genpercept
from twofold.compat.genpercept import genpercept_task, median_scale_shift_invariant, zeroed_normals
from twofold.geometry import align_affine
from twofold.image import resize, resize_nearest
from twofold.metrics import DEPTH, affine_aligned
from twofold.tasks import TASKS

NAMES = ("depth", "disparity", "normals", "mask", "matting", "segmentation")


def test_median_loss_equals_the_published_number():
    assert median_scale_shift_invariant(*published()).item() == pytest.approx(0.986824, abs=1e-6)
    assert genpercept_task(TASKS["depth"]).losses["median_ssi"] is median_scale_shift_invariant
    assert not [n for n in NAMES if "median_ssi" in TASKS[n].losses]


def test_median_loss_includes_invalid_pixels():
    """Unlike every other loss, it changes with the prediction at invalid pixels."""
    pred, target, mask = published()
    changed = torch.where(mask, pred, pred + 5)
    assert abs(median_scale_shift_invariant(changed, target, mask).item() - 0.986824) > 0.05
    for scale, shift in ((3.0, 0.0), (0.2, -1.0)):
        found = median_scale_shift_invariant(scale * pred + shift, target, mask).item()
        assert found == pytest.approx(0.986824, abs=1e-5)


def test_published_fit_replaces_a_negative_scale_by_the_median():
    """A prediction that decreases where the target increases is aligned to a constant, its median."""
    target = torch.tensor([-1.0, -0.5, 0.0, 1.0]).reshape(1, 1, 1, 4).expand(-1, 3, -1, -1)
    pred, mask = -target, torch.ones(1, 1, 1, 4, dtype=torch.bool)
    aligned, shifted = 2 - target[0, 0, 0], 2 + target[0, 0, 0]
    # The medians are the second of four sorted values: 2 + (-0.5) of the target, 2 + 0 of the prediction.
    expected = (aligned * (1.5 / 2) - shifted).abs().mean()
    torch.testing.assert_close(genpercept.scale_shift_invariant(pred, target, mask), expected)
    ours = TASKS["depth"].losses["ssi"](pred, target, mask)
    torch.testing.assert_close(ours, (pred - target).abs().mean())
    right = genpercept.scale_shift_invariant(0.3 * target - 0.1, target, mask)
    assert right.item() == pytest.approx(0, abs=3e-5)


@pytest.mark.parametrize("loss", [genpercept.scale_shift_invariant, median_scale_shift_invariant])
def test_published_losses_have_finite_gradients(loss):
    pred, target, mask = published()
    for said_, mask_ in ((pred, mask), (pred, mask & False), (pred * 0, mask), (-target, mask)):
        given = said_.clone().requires_grad_(True)
        cost = loss(given, target, mask_)
        cost.backward()
        assert given.grad is not None
        assert bool(cost.isfinite())
        assert bool(given.grad.isfinite().all())
        assert bool(mask_.any()) or cost.item() == 0


def test_zeroed_normals_have_an_error_of_ninety_degrees():
    up = torch.tensor([0.0, 0.6, 0.8]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    depth_valid = torch.tensor([True, False, True, True]).reshape(1, 1, 1, 4)
    vectors, known = zeroed_normals(up, valid, depth_valid)
    assert torch.equal(known, valid)
    assert vectors.norm(dim=1).flatten().tolist() == pytest.approx([1, 0, 1, 0])
    task = genpercept_task(TASKS["normals"])
    target, mask = task.encode(vectors, known)
    assert torch.equal(mask, valid)
    pred = up.clone().requires_grad_(True)
    loss = task.loss(pred, target, mask)
    floor = math.acos(1 - 1e-4)
    assert loss.item() == pytest.approx((2 * floor + math.pi / 2) / 3, abs=1e-4)
    loss.backward()
    assert pred.grad is not None
    assert not pred.grad.any()  # the loss is constant
    # By default such pixels are invalid and left out.
    assert TASKS["normals"].losses["angular"](up, up, valid & depth_valid).item() == pytest.approx(
        floor, abs=1e-4
    )


def test_resize_nearest_does_not_interpolate():
    stripes = (torch.arange(12) % 2).float().expand(3, 6, -1)
    small = resize_nearest(stripes, (3, 4))
    assert torch.equal(small, stripes[:, 1::2, 1::3])
    assert set(small.unique().tolist()) == {0.0, 1.0}
    blended = resize(stripes, (3, 4))
    assert 0.2 < blended.min() <= blended.max() < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_deviations_are_absent_by_default(name):
    """Each property that a deviation breaks holds by default, and does not hold with it."""
    ours, theirs = TASKS[name], genpercept_task(TASKS[name])
    valid = torch.ones(1, 1, 12, 16, dtype=torch.bool)
    if name in ("mask", "matting", "segmentation"):
        full = torch.ones(1, ours.channels, 12, 16)
        assert bool((ours.encode(full, valid)[0] == 1).all())
        assert bool((theirs.encode(full, valid)[0] == -1).all())
    elif name == "normals":
        vector = torch.tensor([2.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
        # The losses of GenPercept ignore the length of a vector.
        assert theirs.loss(3 * vector, vector, valid[..., :1, :1]) == theirs.loss(
            vector, vector, valid[..., :1, :1]
        )
        assert ours.loss(3 * vector, vector, valid[..., :1, :1]) > ours.loss(
            vector, vector, valid[..., :1, :1]
        )
    else:
        _, target, mask = published()
        sideways = (target + torch.arange(16) * 0.1, target, mask & True)
        assert theirs.losses["gradient"](*sideways).item() == pytest.approx(0, abs=1e-6)
        assert ours.losses["gradient"](*sideways).item() > 0.05
        depth, known = plane()
        assert bool((theirs.encode(depth, known)[0][:, :1][depth == 0] == -1).all())
        assert not ours.encode(depth, known)[0][:, :1][depth == 0].any()


def test_one_near_pixel_changes_published_disparity_more_than_ours():
    depth = torch.linspace(2, 10, 400).reshape(1, 1, 20, 20).clone()
    valid = torch.ones_like(depth, dtype=torch.bool)
    near = depth.clone()
    near[..., 0, 0] = 0.05
    change = [
        (task.encode(near, valid)[0] - task.encode(depth, valid)[0])[..., 10:, :].abs().mean().item()
        for task in (TASKS["disparity"], genpercept_task(TASKS["disparity"]))
    ]
    assert change[0] < 0.02 < 0.1 < change[1]


def test_invalid_far_pixels_change_published_disparity_of_valid_ones():
    """Sky at 655 m beside depths of up to 80 m: -0.9635 in the original (numbers of its own code), -1 by default."""
    depth = torch.cat([torch.linspace(1.4, 80, 63), torch.tensor([655.0])]).reshape(1, 1, 8, 8)
    valid = depth <= 80
    theirs, _ = genpercept_task(TASKS["disparity"]).encode(depth, valid)
    expected = (1 / 80 - 1 / 655) / (1 / 1.4 - 1 / 655) * 2 - 1
    assert theirs[0, 0][valid[0, 0]].min().item() == pytest.approx(expected, abs=1e-6)
    assert expected > -0.98
    assert TASKS["disparity"].encode(depth, valid)[0][0, 0][valid[0, 0]].min() == -1


def test_scores_equal_the_published_numbers():
    """Scale, shift and scores of a closed-form map (numbers of the original's evaluation)."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    truth = (2 + 0.5 * y + 0.2 * x)[None]
    pred = (0.05 * y + 0.025 * x + 0.02 * torch.sin(x * y))[None]
    pred = (pred - pred.min()) / (pred.max() - pred.min())
    valid = plane()[1][0]
    assert align_affine(pred, truth, valid) == pytest.approx((8.818457, 1.940009), abs=1e-6)
    aligned = affine_aligned(pred, truth, valid, (1e-3, 10))
    expected = {
        "abs_rel": 0.033148, "sq_rel": 0.009193, "rmse": 0.235869, "rmse_log": 0.040181, "log10": 0.014360,
        "delta1": 1.0, "i_rmse": 0.007966, "silog": 4.018064,
    }  # fmt: skip
    found = {n: DEPTH[n].compute(DEPTH[n].measure(aligned, truth.double(), valid)) for n in expected}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_genpercept_tasks_keep_names_spaces_and_losses(name):
    task = genpercept_task(TASKS[name])
    assert (task.name, task.target, task.space, task.out_channels) == (
        name, TASKS[name].target, TASKS[name].space, TASKS[name].out_channels,
    )  # fmt: skip
    assert set(TASKS[name].losses) <= set(task.losses)


@pytest.mark.parametrize("name", [n for n in TASKS if n not in NAMES])
def test_other_tasks_have_no_genpercept_variant(name):
    with pytest.raises(ValueError, match=f"no task '{name}'"):
        genpercept_task(TASKS[name])
