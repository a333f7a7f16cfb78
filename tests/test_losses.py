"""Losses: numbers of GenPercept's own modules, closed forms, and what they do at their edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from twofold.compat.genpercept import encode_depth, encode_minmax, genpercept_task, gradient_vertical
from twofold.geometry import unit
from twofold.tasks import TASKS
from twofold.tasks.depth import scale_shift_invariant
from twofold.tasks.losses import (
    balanced_binary_cross_entropy,
    binary_cross_entropy,
    cross_entropy,
    gradient,
    l1,
    masked_mean,
    mse,
    soft_iou,
)
from twofold.tasks.normals import angular, l1 as l1_of_vectors

EVERYWHERE = torch.ones(1, 1, 1, 4, dtype=torch.bool)


def published():
    """Two closed-form maps of 12 x 16 and 329 known pixels of them."""
    b, y, x = torch.meshgrid(torch.arange(2.0), torch.arange(12.0), torch.arange(16.0), indexing="ij")
    output = torch.sin(0.37 * y + 0.61 * x + 0.5 * b)[:, None]
    required = torch.cos(0.23 * y - 0.41 * x + 0.3 * b)[:, None]
    mask = (((3 * y + 5 * x + b) % 7) != 0)[:, None]
    assert int(mask.sum()) == 329
    return output, required, mask


def plane():
    """Metres with holes of 0 and one pixel beyond the range of the data."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    depth = 1 + 0.5 * y + 0.3 * x
    depth[(x + y) % 9 == 0] = 0
    depth[3, 4] = 120
    return depth[None, None], ((depth > 1e-5) & (depth < 80))[None, None]


def line(*shares):
    """A canvas of one row."""
    return (torch.tensor(shares, dtype=torch.float32) * 2 - 1).reshape(1, 1, 1, -1).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_published_losses_of_depth(channels):
    output, required, mask = published()
    output, required = output.expand(-1, channels, -1, -1), required.expand(-1, channels, -1, -1)
    assert mse(output, required, mask).item() == pytest.approx(0.847259, abs=1e-6)
    assert scale_shift_invariant(output, required, mask).item() == pytest.approx(0.622383, abs=1e-6)
    assert gradient_vertical(output, required, mask).item() == pytest.approx(0.189688, abs=1e-6)
    task = genpercept_task(TASKS["depth"])
    assert task.loss(output, required, mask).item() == pytest.approx(1.537827, abs=2e-6)
    assert TASKS["depth"].losses["gradient"](output, required, mask) == gradient(output, required, mask)


def test_the_gradient_loss_of_a_slope_by_hand():
    """Error 1 from column to column: neighbours at scale k are 2^k apart. The mean over four scales is 15 / 4."""
    error = torch.arange(16.0).expand(1, 1, 16, 16)
    known = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    assert gradient(error, 0 * error, known).item() == pytest.approx(15 / 4)
    assert gradient(error, 0 * error, known, scales=1).item() == pytest.approx(1)


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if t.is_image])
def test_losses_are_of_what_a_map_is_decoded_from(name):
    """Depth, masks and mattes average the decoded channels before the error; colours and vectors have no mean."""
    rng = torch.Generator().manual_seed(0)
    target = torch.rand((2, 1, 12, 16), generator=rng).expand(-1, 3, -1, -1) * 2 - 1
    mean = target + 0.3 * torch.rand((2, 1, 12, 16), generator=rng)
    offsets = torch.tensor([0.5, -0.2, -0.3]).reshape(1, 3, 1, 1)
    pred, mask = mean + offsets, torch.rand((2, 1, 12, 16), generator=rng) > 0.2
    task = TASKS[name]
    averaged = task.channels == 1 and not task.classes
    assert torch.allclose(task.decode(pred), task.decode(mean), atol=1e-6) == averaged
    for variant in (
        (task, genpercept_task(task)) if name in ("depth", "disparity", "mask", "matting") else (task,)
    ):
        for loss in variant.losses.values() if averaged else ():
            torch.testing.assert_close(loss(pred, target, mask), loss(mean, target, mask))
    expected = (mean - target)[:, :1].square()[mask].mean()
    # By channel, the variance of the channels is added: here (0.25 + 0.04 + 0.09) / 3.
    spread = 0 if averaged else 0.38 / 3
    torch.testing.assert_close(task.losses["mse"](pred, target, mask), expected + spread)


def test_published_gradient_in_both_directions():
    output, required, mask = published()
    sideways = gradient_vertical(output.mT, required.mT, mask.mT)
    both = gradient_vertical(output, required, mask) + sideways
    assert both.item() == pytest.approx(0.528386, abs=1e-6)
    # Ours at one scale divides by pairs instead of pixels.
    pairs = [(m[..., 1:, :] & m[..., :-1, :]).sum() for m in (mask, mask.mT)]
    expected = sum(g * 329 / n for g, n in zip((both - sideways, sideways), pairs, strict=True))
    torch.testing.assert_close(gradient(output, required, mask, scales=1), expected)


def test_published_angle():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    output = torch.stack(
        [torch.sin(0.3 * y + 0.1 * x), torch.cos(0.2 * x - 0.1 * y), 1 + 0.5 * torch.sin(0.5 * x)]
    )
    required = unit(torch.stack([torch.cos(0.15 * y), torch.sin(0.2 * x), torch.ones_like(x)])[None])
    mask = published()[2][:1]
    assert angular(output[None], required, mask).item() == pytest.approx(0.525814, abs=1e-6)


def test_published_depth():
    depth, valid = plane()
    canvas, mask = encode_depth(depth, valid)
    assert torch.equal(mask, valid)
    assert canvas.shape == (1, 3, 12, 16)
    assert canvas.mean().item() == pytest.approx(-0.109695, abs=1e-6)
    assert [canvas[0, c, i, j].item() for c, i, j in ((0, 0, 1), (1, 5, 7), (2, 11, 15))] == pytest.approx(
        [-1, -0.113208, 1], abs=1e-6
    )
    ours, _ = TASKS["depth"].encode(depth, valid)
    torch.testing.assert_close(torch.where(valid, canvas, 0), ours)
    assert bool((canvas[:, :1][depth == 0] == -1).all())
    assert bool((encode_depth(depth, torch.zeros_like(valid))[0] == -1).all())


def test_published_disparity_is_the_compatible_one():
    depth, valid = plane()
    canvas, _ = genpercept_task(TASKS["disparity"]).encode(depth, valid)
    found = [canvas.mean(), canvas[0, 0, 5, 7], canvas[0, 0, 11, 15], canvas[0, 0, 3, 4]]
    assert [x.item() for x in found] == pytest.approx([-0.548513, -0.552533, -0.782952, -1], abs=1e-6)


def test_masks_and_colours_are_normalized_only_with_the_option():
    valid = torch.rand(2, 1, 4, 5) > 0.5
    colours = torch.rand(2, 3, 4, 5) * torch.tensor([0.5, 0.1]).reshape(2, 1, 1, 1) + 0.3
    canvas, mask = encode_minmax(colours, valid)
    assert bool(mask.all())
    assert canvas.flatten(1).amin(1).tolist() == [-1, -1]
    assert canvas.flatten(1).amax(1).tolist() == pytest.approx([1, 1])
    low, high = colours[0].min(), colours[0].max()
    torch.testing.assert_close(canvas[0], (colours[0] - low) / (high - low) * 2 - 1)
    full = torch.ones(1, 1, 4, 5)
    for name in ("mask", "matting", "segmentation"):
        task = TASKS[name]
        target = full.expand(-1, task.channels, -1, -1)
        assert bool((genpercept_task(task).encode(target, full > 0)[0] == -1).all())
        assert bool((task.encode(target, full > 0)[0] == 1).all())


def test_compat_normals_loss_depends_on_the_angle_only():
    assert genpercept_task(TASKS["normals"]).weights == {"angular": 1.0}
    assert TASKS["normals"].weights == {"angular": 1.0, "mse": 0.5}


def test_options_that_genpercept_lacks_are_reported():
    with pytest.raises(ValueError, match="no task 'albedo'"):
        genpercept_task(TASKS["albedo"])


def test_cross_entropy_of_shares():
    output, required = line(0.9, 0.2, 0.5, 0.7), line(1, 0, 1, 0.3)
    expected = F.binary_cross_entropy((output[:, :1] + 1) / 2, (required[:, :1] + 1) / 2)
    torch.testing.assert_close(binary_cross_entropy(output, required, EVERYWHERE), expected)
    right = line(1, 0, 1, 0)
    assert binary_cross_entropy(right, right, EVERYWHERE).item() == 0
    assert binary_cross_entropy(right * 3, right, EVERYWHERE).item() == 0


def test_balanced_cross_entropy_is_of_two_classes_weighted_by_each_other():
    """Torch's own, of two logits, with the weights that the programs of multi-task benchmarks give it."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 5, 7, generator=rng)
    ids = (torch.rand(1, 1, 5, 7, generator=rng) > 0.8).float()
    known = torch.rand(1, 1, 5, 7, generator=rng) > 0.3
    front = ids[known].mean()
    every = F.cross_entropy(logits, ids[:, 0].long(), torch.stack([front, 1 - front]), reduction="none")
    output = logits.softmax(1)[:, 1:].expand(-1, 3, -1, -1) * 2 - 1
    cost = balanced_binary_cross_entropy(output, ids.expand(-1, 3, -1, -1) * 2 - 1, known)
    torch.testing.assert_close(cost, every[known[:, 0]].mean())
    # One kind alone has nothing to be weighed against.
    assert balanced_binary_cross_entropy(output, torch.ones_like(output), known).item() == 0


def test_vectors_are_made_unit_before_their_numbers_are_compared():
    required = unit(torch.tensor([[3.0, 0, 4], [0, 1, 0]]), dim=-1).T.reshape(1, 3, 1, 2)
    output = torch.tensor([[0.0, 0, 9], [0, -2, 0]]).T.reshape(1, 3, 1, 2)
    both = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    assert l1_of_vectors(output, required, both).item() == pytest.approx((0.6 + 0.2 + 2) / 2)
    assert l1_of_vectors(required * 7, required, both).item() == pytest.approx(0, abs=1e-6)


def test_an_answer_far_on_the_wrong_side_is_pulled_back():
    output = line(-0.5, 1.5, 0.005, 3.0).clone().requires_grad_(True)
    loss = binary_cross_entropy(output, line(1, 0, 1, 0.5), EVERYWHERE)
    loss.backward()
    assert output.grad.mean(1).flatten().sign().tolist() == [-1, 1, -1, 1]
    # The tangent continues the logarithm: no step in value or slope where it begins.
    near = torch.tensor([0.0099, 0.0101]).reshape(2, 1, 1, 1) * 2 - 1
    costs = [binary_cross_entropy(n[None], torch.ones(1, 1, 1, 1), EVERYWHERE[..., :1]) for n in near]
    assert costs[0].item() - costs[1].item() == pytest.approx(0.02, abs=1e-3)


def test_intersection_over_union_of_shares():
    required = line(1, 1, 0, 0)
    assert soft_iou(line(1, 0, 1, 0), required, EVERYWHERE).item() == pytest.approx(1 - 1 / 3)
    assert soft_iou(line(0.5, 1, 0.25, 0), required, EVERYWHERE).item() == pytest.approx(1 - 1.5 / 2.25)
    assert soft_iou(line(0.3, 1, 0, 0.8), line(0.3, 1, 0, 0.8), EVERYWHERE).item() == pytest.approx(0)
    assert soft_iou(line(0, 0, 0, 0), line(0, 0, 0, 0), EVERYWHERE).item() == 0
    assert soft_iou(line(0, 0, 0, 0.1), line(0, 0, 0, 0), EVERYWHERE).item() == 1
    # Each image has the same weight; one without a target has none.
    output, both = line(1, 0, 1, 0).repeat(3, 1, 1, 1), torch.cat([required, line(1, 0, 1, 0), required])
    mask = EVERYWHERE.repeat(3, 1, 1, 1)
    mask[2] = False
    assert soft_iou(output, both, mask).item() == pytest.approx((1 - 1 / 3) / 2)


def test_cross_entropy_of_classes_sees_no_ignored_pixel():
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(2, 5, 3, 4, generator=rng).requires_grad_(True)
    ids = torch.randint(5, (2, 1, 3, 4), generator=rng).float()
    mask = torch.rand(2, 1, 3, 4, generator=rng) > 0.4
    ids[~mask] = 255
    expected = F.cross_entropy(output, torch.where(mask, ids, -100)[:, 0].long())
    loss = cross_entropy(output, ids, mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert output.grad is not None
    assert not output.grad.masked_select(~mask).any()
    with pytest.raises(ValueError, match=r"the class 255.*0 to 4"):
        cross_entropy(output, ids, torch.ones_like(mask))
    with pytest.raises(ValueError, match="the class -1"):
        cross_entropy(output, torch.where(mask, ids, -1), torch.ones_like(mask))


@pytest.mark.parametrize(
    "loss",
    [
        mse, l1, l1_of_vectors, gradient, gradient_vertical, binary_cross_entropy, balanced_binary_cross_entropy,
        soft_iou, cross_entropy,
    ],
)  # fmt: skip
def test_nothing_known_costs_nothing_and_spoils_nothing(loss):
    output = torch.full((2, 3, 1, 4), 0.3, requires_grad=True)
    cost = loss(output, torch.full((2, 3 if loss is not cross_entropy else 1, 1, 4), 9.0), output[:, :1] > 1)
    cost.backward()
    assert cost.item() == 0
    assert output.grad is not None
    assert not output.grad.any()


def test_a_mean_counts_channels_and_pixels():
    error = torch.tensor([[1.0, 2.0], [3.0, math.pi]]).reshape(1, 2, 1, 2)
    assert masked_mean(error, torch.tensor([True, False]).reshape(1, 1, 1, 2)).item() == 2
