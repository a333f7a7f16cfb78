"""Laws every task obeys."""

import math

import pytest
import torch

from twofold.geometry import unit
from twofold.sample import UNITS
from twofold.tasks import TASKS, get_task
from twofold.tasks.depth import scale_shift_invariant
from twofold.tasks.disparity import encode_whole
from twofold.tasks.losses import gradient


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def metres(rng):
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    return (1 + 0.1 * y + 0.05 * x + 0.2 * torch.sin(x))[None, None].repeat(2, 1, 1, 1)


def vectors(rng):
    return unit(torch.randn(2, 3, 24, 32, generator=rng) + torch.tensor([0, 0, 1.5]).reshape(3, 1, 1))


def shares(rng):
    return torch.rand(2, 1, 24, 32, generator=rng)


def pictures(rng):
    return torch.rand(2, 3, 24, 32, generator=rng)


TARGETS = {
    "depth": metres,
    "normals": vectors,
    "disparity": metres,
    "mask": lambda rng: (shares(rng) > 0.5).float(),
    "matting": shares,
    "segmentation": pictures,
    "semantic": lambda rng: torch.randint(38, (2, 1, 24, 32), generator=rng).float(),
    "albedo": pictures,
    "shading": pictures,
    "residual": pictures,
    "material": pictures,
}


def known(task, seed=0):
    """A batch of two targets with a hole in each."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, 1, 24, 32, generator=rng) > 0.2
    target = TARGETS[task.name](rng)
    return torch.where(valid, target, torch.zeros_like(target)), valid


def perfect(task, target):
    """The map of a predictor that knows the target."""
    return torch.where(target > 0, 1 / target, 0) if task.name == "disparity" else target


def test_what_is_encoded_can_be_decoded(task):
    target, valid = known(task)
    canvas, mask = task.encode(target, valid)
    assert torch.equal(mask, valid)
    assert canvas.shape == (2, 3, 24, 32)
    assert canvas.abs().max() <= 1 + 1e-6
    found = task.decode(canvas)
    for i in range(2):
        aligned = task.align(found[i], target[i], valid[i])
        error = task.distance(aligned, target[i])[valid[i]]
        # depth: the 2 % at each end are clipped by design, everything between comes back
        assert error.median() < 0.06
        assert error.quantile(0.9) < 0.15


def test_two_flips_are_none(task):
    target, _ = known(task)
    assert torch.equal(task.flip(task.flip(target)), target)


def test_encoding_a_mirror_image_mirrors_the_canvas(task):
    target, valid = known(task)
    canvas, _ = task.encode(target, valid)
    mirrored, _ = task.encode(task.flip(target), valid.flip(-1))
    expected = canvas.flip(-1) if task.channels == 1 else task.flip(canvas)
    torch.testing.assert_close(mirrored, expected)


def test_the_right_canvas_costs_nothing(task):
    canvas, mask = task.encode(*known(task))
    # angular keeps the cosine off 1, which leaves acos(1 - 1e-4) = 0.0141 rad
    assert task.loss(canvas, canvas, mask).item() == pytest.approx(0, abs=0.015)


def test_nothing_is_learned_where_nothing_is_known(task):
    canvas, mask = task.encode(*known(task))
    said = canvas + 0.1
    spoiled = torch.where(mask, said, torch.full_like(said, 0.7))
    for loss in task.losses.values():
        torch.testing.assert_close(loss(said, canvas, mask), loss(spoiled, canvas, mask))


def test_an_image_without_any_truth_costs_nothing_and_spoils_nothing(task):
    target, valid = known(task)
    canvas, mask = task.encode(target, torch.zeros_like(valid))
    said = canvas.clone().requires_grad_(True)
    loss = task.loss(said, canvas, mask)
    loss.backward()
    assert loss.item() == 0
    assert bool(said.grad.isfinite().all())


def test_a_perfect_prediction_scores_perfectly(task):
    target, valid = known(task)
    for metric in task.metrics:
        total = sum(
            metric.measure(task.align(perfect(task, t), t, v), t, v)
            for t, v in zip(target, valid, strict=True)
        )
        best = {"lower": 0.0, "higher": 100.0 if metric.unit in ("%", "dB") else 1.0}[metric.better]
        assert metric.conclude(total) == pytest.approx(best, abs=0.02)


def test_merging_one_map_many_times_changes_nothing_that_is_scored(task):
    target, valid = known(task)
    one = task.decode(task.encode(target, valid)[0])[0]
    merged = task.merge(one.expand(4, -1, -1, -1))
    assert merged.map.shape == one.shape
    assert merged.uncertainty.shape == (1, 24, 32)
    assert merged.uncertainty.max() < 1e-6
    again, once = (task.align(m, target[0], valid[0]) for m in (merged.map, one))
    assert task.distance(again, once).max() < 1e-3


def test_show_is_a_picture(task):
    target, valid = known(task)
    picture = task.show(task.decode(task.encode(target, valid)[0])[0])
    assert picture.shape == (3, 24, 32)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_every_task_is_what_its_target_is_said_to_be(task):
    assert TASKS[task.name] is task
    assert set(task.weights) <= set(task.losses)
    # a disparity is made of depth, which is what data holds
    assert UNITS["depth" if task.name == "disparity" else task.name].channels == task.channels


def test_prompts_tell_tasks_apart():
    assert len({t.prompt for t in TASKS.values()}) == len(TASKS)


@pytest.mark.parametrize(
    "name", [n for n in TASKS if TASKS[n].classes == () and n not in ("depth", "disparity", "normals")]
)
def test_numbers_on_a_fixed_scale_come_back_as_they_were(name):
    task = TASKS[name]
    target, valid = known(task)
    found = task.decode(task.encode(target, valid)[0])
    torch.testing.assert_close(torch.where(valid, found, 0), target, rtol=0, atol=1e-6)
    dimmed = task.decode(task.encode(target / 4, valid)[0])
    torch.testing.assert_close(torch.where(valid, dimmed, 0), target / 4, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"to 25\d.*scale"):
        task.encode(target * 255, valid)
    task.encode(torch.where(valid, target, math.nan), valid)


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
    canvas, mask = encode_whole(depth[None, None], valid[None, None])
    assert torch.equal(mask[0, 0], valid)
    assert canvas.shape == (1, 3, 12, 16)
    assert canvas.mean().item() == pytest.approx(-0.548513, abs=1e-5)
    assert canvas[0, 1, 5, 7].item() == pytest.approx(-0.552533, abs=1e-5)
    assert canvas[0, 2, 11, 15].item() == pytest.approx(-0.782952, abs=1e-5)
    assert canvas[0, 0, 3, 4].item() == -1


def test_a_disparity_of_nothing_has_a_score():
    target, valid = known(TASKS["disparity"])
    flat = TASKS["disparity"].align(torch.zeros_like(target[0]), target[0], valid[0])
    assert bool(flat.isfinite().all())


def test_near_has_one_colour_in_depth_and_in_disparity():
    depth, disparity = TASKS["depth"], TASKS["disparity"]
    level = torch.linspace(0, 1, 12).reshape(1, 3, 4)
    torch.testing.assert_close(disparity.show(1 - level), depth.show(level), rtol=0, atol=0.02)


def test_the_sky_is_painted_far_and_its_depth_never_measured():
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


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="depth, normals"):
        get_task("smell")
    assert get_task("twofold.tasks.depth:depth") is TASKS["depth"]
