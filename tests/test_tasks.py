"""Laws every task obeys."""

import math

import pytest
import torch

from truths import ALL, known, network_output, perfect
from twofold.compat.genpercept import encode_disparity
from twofold.predict.prediction import Prediction
from twofold.targets import TARGETS
from twofold.targets.people import JOINTS
from twofold.tasks import TASKS, get_task
from twofold.tasks.depth import scale_shift_invariant
from twofold.tasks.losses import gradient
from twofold.tasks.matting import composition

# What a loss costs where everything is right: the angle keeps its cosine off 1, which leaves acos(1 - 1e-4); the
# likeness of a colour and a logit never reach 1; roots are of a little more than 0.
FLOORS = {"angular": 0.0142, "colour": 0.01, "cross_entropy": 1e-4, "composition": 1.1e-6}


@pytest.fixture(params=ALL)
def task(request):
    return ALL[request.param]


def losses(task, output, required, mask, image=None):
    """Each loss by its name, with a grey image where one is needed."""
    image = torch.full_like(required[:, :1], 0.5).expand(-1, 3, -1, -1) if image is None else image
    return {name: task.loss(output, required, mask, {name: 1.0}, image) for name in task.loss_names}


def test_what_is_encoded_can_be_decoded(task):
    target, valid = known(task)
    canvas, mask = task.encode(target, valid)
    assert not bool((mask & ~valid).any())
    assert canvas.shape == (2, 3 if task.is_image else task.channels, 24, 32)
    if task.is_image:
        assert canvas.abs().max() <= 1 + 1e-6
    found = task.decode(network_output(task, canvas))
    assert found.shape == (2, task.channels, 24, 32)
    for i in range(2):
        aligned = task.align(found[i], target[i], valid[i])
        error = task.distance(aligned, target[i].clamp(min=0) if task.name == "keypoints" else target[i])
        error = error[mask[i]]
        # depth: the 2 % at each end are clipped by design, everything between comes back
        assert error.median() < 0.06
        assert error.quantile(0.9) < 0.15


def test_only_ignored_pixels_have_no_loss(task):
    target, valid = known(task)
    _, mask = task.encode(target, valid)
    ignored = torch.isin(target, torch.tensor([3.0])) if "region" in task.name else torch.zeros_like(valid)
    assert torch.equal(mask, valid & ~ignored)


def test_two_flips_are_none(task):
    target, _ = known(task)
    assert torch.equal(task.flip(task.flip(target)), target)


def test_the_mirror_image_of_normals_has_x_negated():
    """A wall that faces right, in the left half, becomes one that faces left, in the right half."""
    right, up = torch.tensor([0.6, 0.0, 0.8]), torch.tensor([0.0, 0.6, 0.8])
    left = torch.tensor([-0.6, 0.0, 0.8])
    found = TASKS["normals"].flip(torch.stack([right, up], 1)[:, None])
    torch.testing.assert_close(found, torch.stack([up, left], 1)[:, None])


def test_a_mirror_image_reverses_columns_and_nothing_else_unless_left_and_right_are_named(task):
    target, _ = known(task)
    columns = target.flip(-1)
    if task.target == "normals":
        columns = columns * torch.tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1)
    if task.target == "keypoints":
        sides = {"left": "right", "right": "left"}
        other = ["_".join(sides.get(part, part) for part in joint.split("_")) for joint in JOINTS]
        columns = columns[:, [JOINTS.index(joint) for joint in other]]
    if task.target == "skeleton":
        columns = columns[
            :, [2, 1, 0]
        ]  # right limbs have the colours of left ones with red and blue exchanged
    assert torch.equal(task.flip(target), columns)
    assert not torch.equal(task.flip(target), target)


def test_encoding_a_mirror_image_mirrors_the_canvas(task):
    target, valid = known(task)
    canvas, mask = task.encode(target, valid)
    mirrored, there = task.encode(task.flip(target), valid.flip(-1))
    torch.testing.assert_close(mirrored, task.flip(canvas))
    assert torch.equal(there, mask.flip(-1))


def test_decoding_a_mirror_image_mirrors_the_map(task):
    rng = torch.Generator().manual_seed(1)
    canvas = torch.randn(2, 3 if task.is_image else task.out_channels, 24, 32, generator=rng)
    torch.testing.assert_close(task.decode(task.flip(canvas)), task.flip(task.decode(canvas)))


def test_the_right_canvas_costs_nothing(task):
    target, valid = known(task)
    canvas, mask = task.encode(target, valid)
    if task.name == "hair":  # shares between 0 and 1 cost their own entropy
        canvas = canvas.sign()
    for name, loss in losses(task, network_output(task, canvas), canvas, mask).items():
        assert 0 <= loss.item() <= FLOORS.get(name, 1e-6), name
    assert task.loss(network_output(task, canvas), canvas, mask).item() <= 0.015


@pytest.mark.parametrize("name", ["depth", "disparity", "sqrt_disparity", "log_depth", "mask", "matting"])
def test_a_canvas_of_one_channel_is_decoded_to_the_share_of_its_range(name):
    """-1 is 0 and 1 is 1; the mean of the channels counts, held in range after."""
    canvas = torch.tensor(
        [[-1.0, 0.0, 1.0, 3.0, -1.0], [-1.0, 0.5, 1.0, 1.0, -3.0], [-1.0, -0.5, 1.0, 2.0, -1.0]]
    )
    found = TASKS[name].decode(canvas.reshape(1, 3, 1, 5))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.5, 1.0, 1.0, 0.0]))


def test_another_canvas_costs_more(task):
    canvas, mask = task.encode(*known(task))
    output = network_output(task, canvas)
    rng = torch.Generator().manual_seed(2)
    wrong = output + 2 * torch.randn(output.shape, generator=rng) * output.abs().max()
    for name, loss in losses(task, wrong, canvas, mask).items():
        assert loss.item() > 0.02, name


def test_every_loss_has_a_finite_slope(task):
    """At the target, near it, far from it, and without valid pixels."""
    canvas, mask = task.encode(*known(task))
    right, rng = network_output(task, canvas), torch.Generator().manual_seed(3)
    for spread in (0.0, 0.1, 10.0):
        for where in (mask, mask & False, mask & (torch.arange(2).reshape(2, 1, 1, 1) > 0)):
            for name in task.loss_names:
                output = (right + spread * torch.randn(right.shape, generator=rng)).requires_grad_(True)
                loss = losses(task, output, canvas, where)[name]
                loss.backward()
                assert output.grad is not None
                assert bool(loss.isfinite()), name
                assert bool(output.grad.isfinite().all()), name
                assert bool(where.any()) or (loss.item() == 0 and not bool(output.grad.any())), name


def test_the_slope_of_every_loss_is_its_difference_quotient(task):
    """Along a random direction, in float64, away from the target."""
    target, valid = known(task)
    canvas, mask = task.encode(target.double(), valid)
    rng = torch.Generator().manual_seed(5)
    output = (
        network_output(task, canvas).double()
        + 0.1 * torch.randn(network_output(task, canvas).shape, generator=rng).double()
    )
    way = torch.randn(output.shape, generator=rng).double()
    step = 1e-5
    for name in task.loss_names:
        at = output.clone().requires_grad_(True)
        losses(task, at, canvas.double(), mask)[name].backward()
        assert at.grad is not None
        ahead, behind = (
            float(losses(task, output + s * way, canvas.double(), mask)[name]) for s in (step, -step)
        )
        assert float((at.grad * way).sum()) == pytest.approx(
            (ahead - behind) / (2 * step), rel=0.02, abs=1e-4
        ), name


def test_invalid_pixels_have_no_loss(task):
    canvas, mask = task.encode(*known(task))
    output, image = network_output(task, canvas) + 0.1, torch.full((2, 3, 24, 32), 0.5)
    spoiled = torch.where(mask, output, torch.full_like(output, 0.7))
    other, dark = torch.where(mask, canvas, torch.full_like(canvas, 0.4)), torch.where(mask, image, 0.1)
    once, again = losses(task, output, canvas, mask, image), losses(task, spoiled, other, mask, dark)
    for name in task.loss_names:
        torch.testing.assert_close(once[name], again[name])
        seen = output.clone().requires_grad_(True)
        losses(task, seen, canvas, mask, image)[name].backward()
        assert seen.grad is not None
        assert not bool(seen.grad.masked_select(~mask).any()), name


def test_an_image_without_any_truth_costs_nothing_and_spoils_nothing(task):
    target, valid = known(task)
    canvas, mask = task.encode(torch.zeros_like(target), torch.zeros_like(valid))
    output = network_output(task, canvas).clone().requires_grad_(True)
    loss = task.loss(output, canvas, mask)
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


def test_a_perfect_prediction_scores_perfectly(task):
    target, valid = known(task)
    for metric in task.metrics:
        total = sum(
            metric.measure(task.align(perfect(task, t, v), t, v), t, v)
            for t, v in zip(target, valid, strict=True)
        )
        best = {"lower": 0.0, "higher": 100.0 if metric.unit in ("%", "dB") else 1.0}[metric.better]
        assert metric.compute(total) == pytest.approx(best, abs=0.02)


def test_merging_one_map_many_times_changes_nothing_that_is_scored(task):
    target, valid = known(task)
    one = task.decode(network_output(task, task.encode(target, valid)[0]))[0]
    merged = task.merge(one.expand(4, -1, -1, -1))
    assert merged.map.shape == one.shape
    assert merged.uncertainty.shape == (1, 24, 32)
    assert merged.uncertainty.max() < 1e-6
    again, once = (task.align(m, target[0], valid[0]) for m in (merged.map, one))
    assert task.distance(again, once).max() < 1e-3


def test_show_returns_an_image(task):
    target, valid = known(task)
    found = task.decode(network_output(task, task.encode(target, valid)[0]))[0]
    photo = task.show(found)
    assert photo.shape == (3, 24, 32)
    assert 0 <= photo.min() <= photo.max() <= 1
    assert photo.std() > 0.05
    # A pixel's colour is its own: other columns first, other columns first in the picture.
    torch.testing.assert_close(task.show(found.flip(-1)), photo.flip(-1))


def test_tasks_match_the_kind_of_their_target(task):
    assert set(task.weights) <= set(task.losses)
    assert TARGETS[task.target].channels == task.channels
    assert not set(task.losses) & set(task.image_losses)
    with pytest.raises(ValueError, match=f"{task.name} has no loss 'beauty'; it has {task.loss_names[0]}"):
        task.loss(*[torch.zeros(1, 3, 2, 2)] * 3, {"beauty": 1.0})


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_found_by_its_name(name):
    assert get_task(name) is TASKS[name]
    assert TASKS[name].name == name


def test_prompts_tell_tasks_apart():
    """Logits and colours are two encodings of the same classes."""
    prompts = [t.prompt for t in TASKS.values() if not t.name.endswith("_logits")]
    assert len(set(prompts)) == len(prompts)
    for name in ("semantic", "parsing"):
        assert TASKS[name].prompt == TASKS[f"{name}_logits"].prompt


@pytest.mark.parametrize(
    "name",
    [n for n, t in ALL.items() if t.is_image and not t.classes and t.target not in ("depth", "normals")],
)
def test_numbers_on_a_fixed_scale_come_back_as_they_were(name):
    task = ALL[name]
    target, valid = known(task)
    found = task.decode(task.encode(target, valid)[0])
    torch.testing.assert_close(torch.where(valid, found, 0), target, rtol=0, atol=1e-6)
    dimmed = task.decode(task.encode(target / 4, valid)[0])
    torch.testing.assert_close(torch.where(valid, dimmed, 0), target / 4, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"to 25\d.*scale"):
        task.encode(target * 255, valid)
    task.encode(torch.where(valid, target, math.nan), valid)


def test_normals_of_any_length_keep_their_direction():
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 3, 5, 6, generator=rng)
    for length in (0.01, 1, 50):
        torch.testing.assert_close(
            TASKS["normals"].decode(vectors * length), vectors / vectors.norm(dim=1, keepdim=True)
        )
    assert TASKS["normals"].decode(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [0, 0, 1]


def test_composition_loss_is_the_difference_of_composites_on_black():
    output, required = torch.tensor([0.0, 1, 0.25]), torch.tensor([1.0, 1, 0.75])
    image = torch.tensor([[1.0, 0.5, 0], [0.2, 0.2, 0.2], [0.4, 0.8, 1.0]]).T.reshape(1, 3, 1, 3)
    right, wrong = ((x * 2 - 1).reshape(1, 1, 1, 3).expand(-1, 3, -1, -1) for x in (required, output))
    mask = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    expected = ((output - required).abs() * image[0, :, 0]).mean()
    found = composition(wrong, right, mask, image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="'composition' of matting reads the image; pass image="):
        TASKS["matting"].loss(wrong, right, mask, {"composition": 1.0})


@pytest.mark.parametrize("name, paint", [("sqrt_disparity", lambda d: -d.rsqrt()), ("log_depth", torch.log)])
def test_other_spaces_are_encoded_by_their_own_quantiles(name, paint):
    depth = torch.linspace(1, 9, 64).reshape(1, 1, 8, 8).clone()
    depth[..., 6:, :] = math.inf
    depth[..., 0, 0] = 0
    valid = depth.isfinite() & (depth > 0)
    canvas, mask = TASKS[name].encode(depth, valid)
    rising = paint(depth[valid])
    low, high = torch.quantile(rising, torch.tensor([0.02, 0.98]))
    expected = ((rising - low) / (high - low) * 2 - 1).clamp(-1, 1)
    sign = -1 if name == "sqrt_disparity" else 1
    torch.testing.assert_close(canvas[:, :1][valid], sign * expected, rtol=0, atol=1e-5)
    assert bool((canvas[..., 6:, :] == sign).all())  # the sky
    assert torch.equal(mask, valid | depth.isposinf())
    assert not canvas[..., 0, 0].any()


@pytest.mark.parametrize("name", ["sqrt_disparity", "log_depth"])
def test_the_other_spaces_are_fitted_in_themselves(name):
    """Any scale and shift of the target is aligned to the target; distant values are limited to a kilometre."""
    task = TASKS[name]
    target, valid = known(task)
    right = perfect(task, target, valid)[0]
    for scale, shift in ((1.0, 0.0), (-0.3, 7.0), (20.0, -1.0)):
        found = task.align(scale * right + shift, target[0], valid[0])
        torch.testing.assert_close(found[valid[0]].float(), target[0][valid[0]])
    right[0, 0, 0] = -30 if name == "sqrt_disparity" else 30
    hole = valid[0].clone()
    hole[0, 0, 0] = False
    assert task.align(right, target[0], hole)[0, 0, 0].item() == pytest.approx(1000)
    flat = task.align(torch.full_like(right, 0.4), target[0], hole)
    assert flat.std() < 1e-6
    assert bool(flat.isfinite().all())
    with pytest.raises(ValueError, match="no valid pixel"):
        task.align(right, target[0], hole & False)


@pytest.mark.parametrize("name", ["depth", "disparity", "sqrt_disparity", "log_depth"])
def test_a_prediction_in_metres_is_what_is_scored(name):
    """What metrics align and what a user converts with the same scale and shift are one map."""
    task = TASKS[name]
    target, valid = known(task)
    right = perfect(task, target, valid)[0]
    output = Prediction(task, 0.2 * right + 0.5, torch.zeros(3, 24, 32), space=task.space)
    metres = output.in_space("depth", 5.0, -2.5)
    assert metres.metric
    there = valid[0]
    torch.testing.assert_close(metres.map[there], target[0][there], rtol=1e-4, atol=1e-4)
    scored = task.align(output.map, target[0], there)
    torch.testing.assert_close(scored[there].float(), metres.map[there], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metres.in_space(name).map[there], right[there], rtol=1e-4, atol=1e-4)


def test_near_is_bright_in_disparity_and_the_sky_is_dark():
    depth = torch.linspace(1, 9, 64).reshape(1, 1, 8, 8).clone()
    depth[..., 6:, :] = math.inf
    valid = depth.isfinite()
    canvas, mask = TASKS["disparity"].encode(depth, valid)
    assert canvas[0, 0, 0, 0] == 1
    assert bool((canvas[..., 6:, :] == -1).all())
    assert bool(mask.all())
    assert bool((canvas[0, 0, :6].flatten().diff() <= 0).all())
    inverse = 1 / depth[valid]
    low, high = torch.quantile(inverse, torch.tensor([0.02, 0.98]))
    expected = ((inverse - low) / (high - low) * 2 - 1).clamp(-1, 1)
    torch.testing.assert_close(canvas[:, :1][valid], expected, rtol=0, atol=1e-5)


def test_published_disparity():
    """GenPercept's normaliser on a plane with holes and one pixel beyond the data's range (numbers of its own code)."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    depth = 1 + 0.5 * y + 0.3 * x
    depth[(x + y) % 9 == 0] = 0
    depth[3, 4] = 120
    valid = (depth > 1e-5) & (depth < 80)
    canvas, mask = encode_disparity(depth[None, None], valid[None, None])
    assert torch.equal(mask[0, 0], valid)
    assert canvas.shape == (1, 3, 12, 16)
    assert canvas.mean().item() == pytest.approx(-0.548513, abs=1e-5)
    assert canvas[0, 1, 5, 7].item() == pytest.approx(-0.552533, abs=1e-5)
    assert canvas[0, 2, 11, 15].item() == pytest.approx(-0.782952, abs=1e-5)
    assert canvas[0, 0, 3, 4].item() == -1


def test_a_disparity_of_nothing_has_a_score():
    target, valid = known(TASKS["disparity"])
    flat = TASKS["disparity"].align(torch.zeros_like(target[0]), target[0], valid[0])
    constant = 1 / float((1 / target[0][valid[0]].double()).mean())
    torch.testing.assert_close(flat, torch.full_like(flat, constant), rtol=1e-5, atol=0)


def test_near_has_one_colour_in_depth_and_in_disparity():
    depth, disparity = TASKS["depth"], TASKS["disparity"]
    level = torch.linspace(0, 1, 12).reshape(1, 3, 4)
    torch.testing.assert_close(disparity.show(1 - level), depth.show(level), rtol=0, atol=0.02)


def test_the_sky_is_encoded_as_far_without_a_depth_loss():
    depth = torch.linspace(1, 9, 64).reshape(1, 1, 8, 8).clone()
    depth[..., :2, :] = math.inf
    valid = depth.isfinite()
    canvas, mask = TASKS["depth"].encode(depth, valid)
    assert bool((canvas[..., :2, :] == 1).all())
    assert bool(mask.all())
    without, _ = TASKS["depth"].encode(torch.where(valid, depth, 0), valid)
    assert torch.equal(canvas[..., 2:, :], without[..., 2:, :])


def test_scale_and_shift_do_not_matter_to_the_invariant_loss():
    canvas, mask = TASKS["depth"].encode(*known(TASKS["depth"]))
    assert scale_shift_invariant(canvas * 0.3 + 0.2, canvas, mask).item() == pytest.approx(0, abs=1e-5)
    assert gradient(canvas + 0.5, canvas, mask).item() == pytest.approx(0, abs=1e-6)


def test_a_prediction_upside_down_is_compared_as_it_is_by_the_invariant_loss():
    """Its least-squares scale is negative; with that scale the loss would be 0."""
    required = torch.linspace(-1, 1, 20).reshape(1, 1, 4, 5).expand(-1, 3, -1, -1)
    mask = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    assert float(scale_shift_invariant(0.5 * required + 0.1, required, mask)) == pytest.approx(0, abs=1e-6)
    upside_down = float((2 * required[:, 0]).abs().mean())
    assert float(scale_shift_invariant(-required, required, mask)) == pytest.approx(upside_down)


def test_an_unknown_task_is_reported_with_the_known_ones():
    with pytest.raises(ValueError, match="depth, disparity"):
        get_task("smell")
    assert get_task("twofold.tasks.depth:depth") is TASKS["depth"]
