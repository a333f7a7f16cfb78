"""GenPercept's quirks: each applies with its option only, and gives the original's number where one exists."""

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


def test_published_loss_of_medians():
    assert median_scale_shift_invariant(*published()).item() == pytest.approx(0.986824, abs=1e-6)
    assert genpercept_task(TASKS["depth"]).losses["median_ssi"] is median_scale_shift_invariant
    assert not [n for n in NAMES if "median_ssi" in TASKS[n].losses]


def test_medians_are_of_unknown_pixels_too():
    """Unlike every other loss, it depends on the prediction at invalid pixels."""
    output, required, mask = published()
    spoiled = torch.where(mask, output, output + 5)
    assert abs(median_scale_shift_invariant(spoiled, required, mask).item() - 0.986824) > 0.05
    for scale, shift in ((3.0, 0.0), (0.2, -1.0)):
        found = median_scale_shift_invariant(scale * output + shift, required, mask).item()
        assert found == pytest.approx(0.986824, abs=1e-5)


def test_published_fit_upside_down():
    """A prediction that decreases where the target increases is set to its median."""
    required = torch.tensor([-1.0, -0.5, 0.0, 1.0]).reshape(1, 1, 1, 4).expand(-1, 3, -1, -1)
    output, mask = -required, torch.ones(1, 1, 1, 4, dtype=torch.bool)
    here, there = 2 - required[0, 0, 0], 2 + required[0, 0, 0]
    # Sorted, the second of four: 2 + (-0.5) of the target, 2 + 0 of the prediction.
    expected = (here * (1.5 / 2) - there).abs().mean()
    torch.testing.assert_close(genpercept.scale_shift_invariant(output, required, mask), expected)
    ours = TASKS["depth"].losses["ssi"](output, required, mask)
    torch.testing.assert_close(ours, (output - required).abs().mean())
    right = genpercept.scale_shift_invariant(0.3 * required - 0.1, required, mask)
    assert right.item() == pytest.approx(0, abs=3e-5)


@pytest.mark.parametrize("loss", [genpercept.scale_shift_invariant, median_scale_shift_invariant])
def test_published_losses_have_finite_slopes(loss):
    output, required, mask = published()
    for said_, mask_ in ((output, mask), (output, mask & False), (output * 0, mask), (-required, mask)):
        given = said_.clone().requires_grad_(True)
        cost = loss(given, required, mask_)
        cost.backward()
        assert given.grad is not None
        assert bool(cost.isfinite())
        assert bool(given.grad.isfinite().all())
        assert bool(mask_.any()) or cost.item() == 0


def test_normals_that_were_zeroed_cost_ninety_degrees():
    up = torch.tensor([0.0, 0.6, 0.8]).reshape(1, 3, 1, 1).repeat(1, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    depth_valid = torch.tensor([True, False, True, True]).reshape(1, 1, 1, 4)
    vectors, known = zeroed_normals(up, valid, depth_valid)
    assert torch.equal(known, valid)
    assert vectors.norm(dim=1).flatten().tolist() == pytest.approx([1, 0, 1, 0])
    task = genpercept_task(TASKS["normals"])
    canvas, mask = task.encode(vectors, known)
    assert torch.equal(mask, valid)
    output = up.clone().requires_grad_(True)
    loss = task.loss(output, canvas, mask)
    floor = math.acos(1 - 1e-4)
    assert loss.item() == pytest.approx((2 * floor + math.pi / 2) / 3, abs=1e-4)
    loss.backward()
    assert output.grad is not None
    assert not output.grad.any()  # a constant without gradient
    # Ours excludes them if the data marks them as invalid.
    assert TASKS["normals"].losses["angular"](up, up, valid & depth_valid).item() == pytest.approx(
        floor, abs=1e-4
    )


def test_the_nearest_pixel_blends_nothing():
    stripes = (torch.arange(12) % 2).float().expand(3, 6, -1)
    small = resize_nearest(stripes, (3, 4))
    assert torch.equal(small, stripes[:, 1::2, 1::3])
    assert set(small.unique().tolist()) == {0.0, 1.0}
    blended = resize(stripes, (3, 4))
    assert 0.2 < blended.min() <= blended.max() < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_default_has_no_quirk(name):
    """Each property that a quirk breaks holds by default and does not hold with the quirk."""
    ours, reference = TASKS[name], genpercept_task(TASKS[name])
    valid = torch.ones(1, 1, 12, 16, dtype=torch.bool)
    if name in ("mask", "matting", "segmentation"):
        full = torch.ones(1, ours.channels, 12, 16)
        assert bool((ours.encode(full, valid)[0] == 1).all())
        assert bool((reference.encode(full, valid)[0] == -1).all())
    elif name == "normals":
        canvas = torch.tensor([2.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
        # Their losses do not see how long a vector is.
        assert reference.loss(3 * canvas, canvas, valid[..., :1, :1]) == reference.loss(
            canvas, canvas, valid[..., :1, :1]
        )
        assert ours.loss(3 * canvas, canvas, valid[..., :1, :1]) > ours.loss(
            canvas, canvas, valid[..., :1, :1]
        )
    else:
        _, required, mask = published()
        sideways = (required + torch.arange(16) * 0.1, required, mask & True)
        assert reference.losses["gradient"](*sideways).item() == pytest.approx(0, abs=1e-6)
        assert ours.losses["gradient"](*sideways).item() > 0.05
        depth, known = plane()
        assert bool((reference.encode(depth, known)[0][:, :1][depth == 0] == -1).all())
        assert not ours.encode(depth, known)[0][:, :1][depth == 0].any()


def test_one_near_pixel_darkens_published_disparity_and_not_ours():
    depth = torch.linspace(2, 10, 400).reshape(1, 1, 20, 20).clone()
    valid = torch.ones_like(depth, dtype=torch.bool)
    near = depth.clone()
    near[..., 0, 0] = 0.05
    moved = [
        (task.encode(near, valid)[0] - task.encode(depth, valid)[0])[..., 10:, :].abs().mean().item()
        for task in (TASKS["disparity"], genpercept_task(TASKS["disparity"]))
    ]
    assert moved[0] < 0.02 < 0.1 < moved[1]


def test_far_pixels_that_are_not_valid_lift_the_farthest_valid_one():
    """Sky at 655 m beside depths of up to 80 m: -0.9635 in the original (numbers of its own code), -1 by default."""
    depth = torch.cat([torch.linspace(1.4, 80, 63), torch.tensor([655.0])]).reshape(1, 1, 8, 8)
    valid = depth <= 80
    reference, _ = genpercept_task(TASKS["disparity"]).encode(depth, valid)
    expected = (1 / 80 - 1 / 655) / (1 / 1.4 - 1 / 655) * 2 - 1
    assert reference[0, 0][valid[0, 0]].min().item() == pytest.approx(expected, abs=1e-6)
    assert expected > -0.98
    assert TASKS["disparity"].encode(depth, valid)[0][0, 0][valid[0, 0]].min() == -1


def test_published_scores():
    """Scale, shift and scores of a closed-form map (numbers of the original's evaluation)."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    truth = (2 + 0.5 * y + 0.2 * x)[None]
    output = (0.05 * y + 0.025 * x + 0.02 * torch.sin(x * y))[None]
    output = (output - output.min()) / (output.max() - output.min())
    valid = plane()[1][0]
    assert align_affine(output, truth, valid) == pytest.approx((8.818457, 1.940009), abs=1e-6)
    aligned = affine_aligned(output, truth, valid, (1e-3, 10))
    required = {
        "abs_rel": 0.033148, "sq_rel": 0.009193, "rmse": 0.235869, "rmse_log": 0.040181, "log10": 0.014360,
        "delta1": 1.0, "i_rmse": 0.007966, "silog": 4.018064,
    }  # fmt: skip
    found = {n: DEPTH[n].compute(DEPTH[n].measure(aligned, truth.double(), valid)) for n in required}
    assert found == pytest.approx(required, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_keeps_to_the_names(name):
    task = genpercept_task(TASKS[name])
    assert (task.name, task.target, task.space, task.out_channels) == (
        name, TASKS[name].target, TASKS[name].space, TASKS[name].out_channels,
    )  # fmt: skip
    assert set(TASKS[name].losses) <= set(task.losses)


@pytest.mark.parametrize("name", [n for n in TASKS if n not in NAMES])
def test_other_tasks_are_not_genpercepts(name):
    with pytest.raises(ValueError, match=f"no task '{name}'"):
        genpercept_task(TASKS[name])
