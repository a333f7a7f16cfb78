"""Class ids: the palette, colours and logits, votes, and scores by confusion matrix."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from twofold.backbones import new
from twofold.heads import LatentHead, UperNetHead, make_head
from twofold.metrics import semantic_metrics, skipped
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import OneStep
from twofold.render.classes import class_ids
from twofold.tasks import TASKS, get_task, semantic_logits_task, semantic_task
from twofold.tasks.palette import MOST, least_distance, palette
from twofold.tasks.semantic import RENDERED, vote


def ids(classes=38, shape=(2, 1, 12, 16), seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed)).float()


def everywhere(x):
    return torch.ones_like(x, dtype=torch.bool)


# The densest packings known of so many points in a cube are a little above the numbers that are not exact.
@pytest.mark.parametrize(
    "n, least",
    [(2, 3**0.5), (3, 2**0.5), (4, 2**0.5), (5, 1.11), (8, 1), (9, 0.86), (14, 0.70), (27, 0.49), (38, 0.40)],
)
def test_colours_are_far_from_each_other(n, least):
    colors = palette(n)
    assert colors.shape == (n, 3)
    assert 0 <= colors.min() <= colors.max() <= 1
    assert torch.equal((colors * 255).round() / 255, colors)
    assert least_distance(colors) >= least - 1e-6


def test_a_palette_never_changes():
    """What is trained with these colours has to be read with them."""
    bytes_ = (palette(38) * 255).round().long()
    weights = torch.arange(1, 39 * 3 - 2).reshape(38, 3)
    assert int((bytes_ * weights).sum()) == 839813
    assert bytes_[:3].tolist() == [[57, 5, 0], [187, 255, 255], [255, 251, 0]]


def test_the_first_colours_are_the_farthest():
    assert least_distance(palette(38)[:8]) > 1.4 * least_distance(palette(38))


def test_a_palette_has_at_most_as_many_colours_as_tell_apart():
    assert palette(1).shape == (1, 3)
    with pytest.raises(ValueError, match=f"1 to {MOST}"):
        palette(MOST + 1)
    with pytest.raises(ValueError, match="not 0"):
        palette(0)


def test_the_classes_are_those_of_rendered_scenes():
    assert {name: i for i, name in enumerate(RENDERED)} == class_ids()
    assert TASKS["semantic"].classes == RENDERED


@pytest.mark.parametrize("classes", [2, 5, 38])
def test_ids_come_back_from_colours_that_are_off_by_less_than_half_their_distance(classes):
    task, target = semantic_task(classes), ids(classes)
    canvas, mask = task.encode(target, everywhere(target))
    assert bool(mask.all())
    rng = torch.Generator().manual_seed(1)
    error = torch.randn(canvas.shape, generator=rng)
    error *= 0.99 * least_distance(palette(classes)) / error.norm(dim=1, keepdim=True)
    assert torch.equal(task.decode(canvas + error), target)


def test_a_colour_is_of_the_nearest_class():
    task, colors = semantic_task(19), palette(19)
    canvas = torch.rand(1, 3, 9, 9) * 2 - 1
    there = canvas[0].flatten(1).T
    expected = np.square((there[:, None] - (colors * 2 - 1)[None]).numpy()).sum(-1).argmin(1)
    assert task.decode(canvas).flatten().tolist() == expected.tolist()


@pytest.mark.parametrize("make", [semantic_task, semantic_logits_task])
def test_ignored_ids_have_no_loss(make):
    task, target = make(5, ignore=(255, 4)), ids(5)
    target[0, 0, 0, :3] = 255
    canvas, mask = task.encode(target, everywhere(target))
    assert torch.equal(mask, (target != 255) & (target != 4))
    assert not canvas.masked_select(~mask).any()
    with pytest.raises(ValueError, match=r"to 255.*0 to 4"):
        make(5).encode(target, everywhere(target))
    with pytest.raises(ValueError, match="classes are 0 to 4"):
        make(5).encode(target * 0 + 0.5, everywhere(target))
    task.encode(torch.where(mask, target, math.nan), mask)


def test_classes_have_names():
    assert semantic_task(3).classes == ("0", "1", "2")
    assert semantic_task(("sky", "ground")).unit == "class id, 0 to 1"
    for wrong in (1, ("a", "a"), 513):
        with pytest.raises(ValueError, match="2 to 512"):
            semantic_task(wrong)


def test_a_colour_between_two_classes_is_not_free():
    task = semantic_task(38)
    target = ids()
    canvas, mask = task.encode(target, everywhere(target))
    assert task.losses["colour"](canvas, canvas, mask).item() < 0.01
    output = torch.zeros_like(canvas).requires_grad_(True)
    task.losses["colour"](output, canvas, mask).backward()
    assert output.grad is not None
    step = -output.grad / output.grad.norm(dim=1, keepdim=True) * 0.05
    assert (output + step - canvas).norm(dim=1).mean() < (output - canvas).norm(dim=1).mean() - 0.02


def test_logits_are_read_by_the_largest():
    task, target = semantic_logits_task(7), ids(7)
    required, mask = task.encode(target, everywhere(target))
    assert torch.equal(required, target)
    assert task.out_channels == 7
    logits = torch.nn.functional.one_hot(target[:, 0].long(), 7).movedim(-1, 1) * 20.0
    assert torch.equal(task.decode(logits), target)
    assert task.loss(logits, required, mask).item() < 1e-4
    assert task.loss(torch.zeros_like(logits), required, mask).item() == pytest.approx(math.log(7), abs=1e-5)
    assert get_task("twofold.tasks.semantic:semantic_logits").target == "semantic"


def test_heads_have_the_channels_of_the_task():
    net = new.tiny()
    assert [TASKS[n].out_channels for n in ("depth", "normals", "semantic")] == [1, 3, 3]
    assert make_head("dpt", net, TASKS["semantic"].out_channels).config["out_channels"] == 3
    assert make_head("upernet", net, semantic_logits_task(7).out_channels).config["classes"] == 7


def test_the_majority_decides():
    members = torch.tensor([[2.0, 1, 5], [3, 1, 4], [3, 1, 4], [2, 7, 6]]).reshape(4, 1, 1, 3)
    merged = vote(members)
    assert merged.map.flatten().tolist() == [2, 1, 4]
    assert merged.uncertainty.flatten().tolist() == [0.5, 0.25, 0.5]
    with pytest.raises(ValueError, match="n 1 h w"):
        vote(members[:0])


def test_scores_of_six_pixels():
    true = torch.tensor([0.0, 0, 1, 1, 1, 2]).reshape(1, 1, 6)
    output = torch.tensor([0.0, 1, 1, 1, 2, 2]).reshape(1, 1, 6)
    metrics = semantic_metrics(4)
    found = {k: m.compute(m.measure(output, true, everywhere(true))) for k, m in metrics.items()}
    assert found["miou"] == pytest.approx((1 / 2 + 2 / 4 + 1 / 2) / 3)  # class 3 occurs in neither map
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["mean_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


def test_mean_accuracy_is_over_target_classes():
    """Of class 0 two of three are found, of class 1 the only one; of two predictions of class 1, one is right."""
    true, output = torch.tensor([0.0, 0, 0, 1]), torch.tensor([0.0, 0, 1, 1])
    metric = semantic_metrics(2)["mean_accuracy"]
    total = metric.measure(
        output.reshape(1, 2, 2), true.reshape(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)
    )
    assert metric.compute(total) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("name", ["miou", "accuracy", "mean_accuracy"])
def test_scores_add_and_see_nothing_that_is_not_valid_or_ignored(name):
    metric = semantic_metrics(5, ignore=(4, 255))[name]
    output, true = ids(5, (4, 1, 6, 7), 1), ids(5, (4, 1, 6, 7), 2)
    true[0, 0, 0] = 255
    valid = torch.rand(true.shape, generator=torch.Generator().manual_seed(3)) > 0.3
    valid[3] = False
    whole = metric.measure(output, true, valid)
    assert torch.equal(
        whole, torch.stack([metric.measure(output[i], true[i], valid[i]) for i in range(4)]).sum(0)
    )
    assert skipped(whole) == 1
    seen = valid & (true != 255) & (true != 4)
    assert whole[:-1].sum() == seen.sum()
    right = torch.where(seen, true, 0)
    assert metric.compute(metric.measure(right, true, valid)) == 1
    nothing = metric.measure(output, true, torch.zeros_like(valid))
    assert math.isnan(metric.compute(nothing))
    assert skipped(nothing) == 4


@pytest.mark.parametrize("wrong", [-1.0, 5.0, 1.5])
def test_what_is_no_class_has_no_score(wrong):
    true = ids(5, (1, 3, 4))
    output = true.clone()
    output[0, 1, 2] = wrong
    with pytest.raises(ValueError, match=f"prediction has the id {wrong:g}.*0 to 4"):
        semantic_metrics(5)["miou"].measure(output, true, everywhere(true))


def test_predicted_ids_have_the_size_of_the_image():
    net, image = new.tiny(), torch.rand(3, 40, 56)
    for task, head in (
        (TASKS["semantic"], LatentHead()),
        (TASKS["semantic"], make_head("dpt", net, 3)),
        (semantic_logits_task(6), make_head("upernet", net, 6).eval()),
    ):
        found = DiffusionPredictor(net, task, OneStep(), head, size=32)(image)
        assert found.map.shape == (1, 40, 56)
        assert torch.equal(found.map, found.map.round().clamp(0, len(task.classes) - 1))
        assert found.color.shape == (3, 40, 56)


@pytest.mark.parametrize("name", ["semantic", "semantic_logits"])
def test_eight_images_are_overfitted_to_their_classes(name):
    """Both encodings of classes, with a UperNet on informative features."""
    torch.manual_seed(0)
    task = {"semantic": semantic_task, "semantic_logits": semantic_logits_task}[name](4)
    head = UperNetHead(task.out_channels, (8, 8, 8, 8), width=16, dropout=0.0)
    blocks = ids(4, (8, 1, 4, 4))
    target = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    taps = [torch.randn(8, 8, n, n) for n in (1, 2, 4, 4)]
    required, mask = task.encode(target, everywhere(target))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    weights = {"colour": 1.0} if name == "semantic" else None
    for _ in range(80):
        output = head(torch.zeros(8, 4, 4, 4), tuple(taps), SimpleNamespace(stride=4))
        loss = task.loss(output, required, mask, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6
    metric = next(m for m in task.metrics if m.name == "accuracy")
    assert metric.compute(metric.measure(task.decode(output.detach()), target, everywhere(target))) > 0.85
    assert replace(task, head_channels=0).out_channels == 1


def test_user_defined_classes_are_given_in_brackets():
    from twofold.tasks import get_task

    own = get_task("semantic_logits[background, person]")
    assert (own.name, own.classes, own.out_channels, own.target) == (
        "semantic_logits", ("background", "person"), 2, "semantic",
    )  # fmt: skip
    assert get_task("parsing[4]").target == "parts"
    assert len(get_task("semantic[21]").classes) == 21
    with pytest.raises(ValueError, match="with different names"):
        get_task("semantic[a,a]")
    with pytest.raises(ValueError, match="unknown task 'depth\\[3\\]'"):
        get_task("depth[3]")
