"""Multi-task benchmarks, parts of people, edges, and what published programs get wrong."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from twofold.metrics import (
    DEPTH,
    EDGES,
    MULTITASK_BY_IMAGE,
    MULTITASK_POOLED,
    NORMALS,
    NORMALS_BY_IMAGE,
    QUIRKS,
    Metric,
    MetricInput,
    edge_metrics,
    iou_by_class,
    multitask_gain,
    parsing_metrics,
    semantic_metrics,
    skipped,
)
from twofold.metrics.edges import compute_ods, compute_ois, count_matches, edge_counts


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, None]


def known(x: Tensor) -> Tensor:
    return torch.ones_like(x[:1], dtype=torch.bool)


def total_of(metric: Metric, *images: tuple[Tensor, Tensor]) -> Tensor:
    return sum((metric.measure(p, t, known(t)) for p, t in images), torch.zeros(()))


def score(metric: Metric, *images: tuple[Tensor, Tensor]) -> float:
    return metric.compute(total_of(metric, *images))


# ---- gains


def test_a_gain_by_hand():
    scores = {"semantic": 44.0, "depth": 0.6, "normals": 19.0}
    baselines = {"semantic": 40.0, "depth": 0.5, "normals": 20.0}
    assert multitask_gain(scores, baselines, ["depth", "normals"]) == pytest.approx((10 - 20 + 5) / 3)
    assert multitask_gain(baselines, baselines, ["depth", "normals"]) == 0


@pytest.mark.parametrize(
    ("scores", "baselines", "lower"),
    [
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}, []),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}, []),
        ({"a": 1.0}, {"a": 1.0}, ["b"]),
        ({}, {}, []),
        ({"a": 1.0}, {"a": 0.0}, []),
    ],
)
def test_gains_of_other_tasks_are_refused(scores, baselines, lower):
    with pytest.raises(ValueError, match=r"same tasks|positive"):
        multitask_gain(scores, baselines, lower)


# ---- classes


def test_an_absent_class_is_left_out_or_counts_zero():
    true, output = line(0, 0, 0, 0, 1, 1, 1, 1), line(0, 0, 0, 1, 0, 1, 1, 1)
    assert score(semantic_metrics(2)["miou"], (output, true)) == pytest.approx(0.6)
    assert score(semantic_metrics(3)["miou"], (output, true)) == pytest.approx(0.6)
    assert score(semantic_metrics(3, absent="zero")["miou"], (output, true)) == pytest.approx(0.4)
    each = iou_by_class(total_of(semantic_metrics(3)["miou"], (output, true)))
    assert each[:2].tolist() == pytest.approx([0.6, 0.6]) and math.isnan(each[2])


def test_classes_are_scored_over_the_set_and_without_what_is_ignored():
    a = line(0, 0, 0, 0), line(0, 0, 0, 0)
    b = line(0, 0, 0, 1), line(0, 1, 1, 1)
    assert score(semantic_metrics(2)["miou"], a, b) == pytest.approx(0.5238095, abs=1e-7)
    true, output = line(255, 0, 0, 0, 1, 1, 1, 1), line(0, 0, 0, 1, 0, 1, 1, 1)
    each = iou_by_class(total_of(semantic_metrics(2, (255,))["miou"], (output, true)))
    assert each.tolist() == pytest.approx([0.5, 0.6])


def test_body_parts_are_scored_only_in_images_with_people():
    people = line(0, 1, 2, 6), line(0, 1, 2, 255)
    nobody = line(1, 1, 1, 1), line(0, 0, 0, 0)
    unlabelled = line(1, 1, 1, 1), line(255, 255, 255, 255)
    for name, metric in parsing_metrics().items():
        total = total_of(metric, people, nobody, unlabelled)
        assert skipped(total) == 2 and metric.compute(total) == 1, name
    assert score(semantic_metrics(7, (255,))["miou"], people, nobody) < 1


# ---- saliency


def half() -> tuple[Tensor, Tensor]:
    """The upper half is salient and predicted so, with lower scores for two of the five rows below."""
    g, p = torch.zeros(1, 10, 10, dtype=torch.float64), torch.zeros(1, 10, 10, dtype=torch.float64)
    g[:, :5], p[:, :5], p[:, 5:7] = 1, 0.95, 0.9
    return p, g


def test_a_sigmoid_of_a_probability_leaves_five_thresholds():
    assert score(MULTITASK_POOLED["saliency_max_f"], half()) == 1
    assert score(MULTITASK_POOLED["saliency_max_f_twice"], half()) == pytest.approx(0.7647058, abs=1e-6)
    # The thresholds 0.55 to 0.70 of a sigmoid are these of a probability: halfway between two, nothing changes.
    g = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    update = MULTITASK_POOLED["saliency_max_f_twice"].update
    edges = [0.2007, 0.4055, 0.6190, 0.8473]
    for low, high in pairwise(edges):
        parts = [
            update(MetricInput(torch.tensor([[[0.0, p]]]).double(), g, known(g)))
            for p in (low + 1e-3, high - 1e-3)
        ]
        assert torch.equal(*parts)


def test_pooled_and_by_image_saliency_are_two_numbers():
    p, g = half()
    p[p == 0.9] = 0.5
    small = p[..., :2].clone(), g[..., :2]
    small[0][:, 3:] = 0
    recall = (1 + 0.6) / 2
    assert score(MULTITASK_BY_IMAGE["saliency_max_f"], (p, g), small) == pytest.approx(
        2 * recall / (1 + recall)
    )
    assert score(MULTITASK_BY_IMAGE["saliency_iou"], (p, g), small) == pytest.approx(recall)
    recall = 56 / 60
    pooled = score(MULTITASK_POOLED["saliency_max_f"], (p, g), small)
    assert pooled == pytest.approx(1.3 * recall / (0.3 + recall))


# ---- depth


def test_pooled_and_by_image_depth():
    a, b = (line(1, 3), line(1, 2)), (line(2, 2, 2, 2), line(2, 2, 2, 2))
    assert score(MULTITASK_POOLED["depth_rmse"], a, b) == pytest.approx(6**-0.5)
    assert score(MULTITASK_BY_IMAGE["depth_rmse"], a, b) == pytest.approx(0.3535534, abs=1e-7)


def test_the_median_over_images_is_that_of_the_bins():
    rng = torch.Generator().manual_seed(0)
    for count in (5, 6):
        d = 1 + torch.rand(count, 1, 4, 4, generator=rng, dtype=torch.float64)
        p = d * (0.8 + 0.4 * torch.rand(d.shape, generator=rng, dtype=torch.float64))
        images = list(zip(p, d, strict=True))
        exact = torch.tensor([score(DEPTH["rmse_log"], x) for x in images]).quantile(0.5).item()
        assert score(MULTITASK_BY_IMAGE["depth_rmse_log"], *images) == pytest.approx(exact, abs=0.51e-4)


def test_a_mask_that_masks_nothing_counts_unknown_depth_as_none():
    p, d = line(2, 3, 5), line(2, 0, 5)
    valid = d > 0
    metric = MULTITASK_BY_IMAGE["depth_rmse_unmasked"]
    assert metric.compute(metric.measure(p, d, valid)) == pytest.approx(math.sqrt(3))
    assert MULTITASK_BY_IMAGE["depth_rmse"].compute(DEPTH["rmse"].measure(p, d, valid)) == 0


# ---- quirks


def tilted(*degrees: float) -> Tensor:
    a = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.zeros_like(a), a.sin(), a.cos()])[:, None]


def test_normals_as_some_programs_have_them():
    assert score(QUIRKS["normals_mean_short_pi"], (tilted(90), tilted(0))) == pytest.approx(
        90.04565, abs=1e-5
    )
    assert score(QUIRKS["normals_mean_at_most_90"], (tilted(180, 30), tilted(0, 0))) == pytest.approx(60)
    assert score(NORMALS["mean"], (tilted(180, 30), tilted(0, 0))) == pytest.approx(105)
    all_around = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    all_around = all_around / all_around.norm(dim=0)
    stored = score(QUIRKS["normals_mean_of_bytes"], (all_around, all_around))
    assert stored == pytest.approx(0.17, abs=0.01)  # what three bytes cost
    for name in ("mean", "median", "rmse"):
        wide = score(QUIRKS[f"normals_{name}_of_bytes"], (tilted(120), tilted(0)))
        assert wide == pytest.approx(120 * 1.000507, abs=0.4)
    other = torch.nn.functional.normalize(
        all_around
        + 0.3 * torch.randn(3, 40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        dim=0,
    )
    stored = ((other + 1) / 2 * 255).round() / 255 * 2 - 1
    apart = torch.acos(torch.cosine_similarity(stored, all_around, dim=0)) * 180 / 3.14
    for threshold in (11.25, 22.5, 30.0):
        found = score(QUIRKS[f"normals_below_{threshold:g}_of_bytes"], (other, all_around))
        assert found == pytest.approx(100 * float((apart < threshold).double().mean()))
    images = [(tilted(1 / 3), tilted(0)), (tilted(2 / 3), tilted(0))]
    assert score(QUIRKS["normals_mean_rounded"], *images) == pytest.approx((0.3333 + 0.6667) / 2, abs=1e-12)
    assert score(NORMALS_BY_IMAGE["mean"], *images) == pytest.approx(0.5, abs=1e-12)


def test_isnet_never_reaches_one():
    g = torch.zeros(1, 20, 20, dtype=torch.float64)
    g[:, 5:15, 5:15] = 1
    assert score(QUIRKS["max_f_isnet"], (g, g)) == pytest.approx(0.9999220, abs=1e-7)


# ---- edges


def counts(right: float, output: float, there: float) -> Tensor:
    return edge_counts(*(torch.tensor([x], dtype=torch.float64) for x in (right, output, there)))


def test_edges_of_two_images_by_hand():
    total = counts(10, 10, 20) + counts(15, 30, 20)
    assert compute_ods(total) == pytest.approx(0.625)
    assert compute_ois(total) == pytest.approx(0.625)


def test_each_image_has_its_own_best_threshold():
    right, there = torch.tensor([10.0, 5.0]).double(), torch.tensor([10.0, 10.0]).double()
    a = edge_counts(right, torch.tensor([10.0, 5.0]).double(), there)
    b = edge_counts(right, torch.tensor([100.0, 5.0]).double(), there)
    assert compute_ods(a + b) < compute_ois(a + b)


def test_every_true_pixel_is_given_once():
    true = torch.zeros(40, 40, dtype=torch.bool)
    true[20] = True
    assert count_matches(true.numpy(), true.numpy()) == 40
    # One pixel off is near enough for a reach of one and a half pixels, two are not.
    reach = 1.5 / math.hypot(40, 40)
    assert count_matches(true.roll(1, 0).numpy(), true.numpy(), reach) == 40
    assert count_matches(true.roll(2, 0).numpy(), true.numpy(), reach) == 0
    doubled = true | true.roll(1, 0)
    assert count_matches(doubled.numpy(), true.numpy(), reach) == 40
    assert count_matches((~(true | True)).numpy(), true.numpy(), reach) == 0


def test_edges_found_shifted_and_invented():
    pytest.importorskip("skimage")
    true = torch.zeros(1, 40, 40, dtype=torch.float64)
    true[:, 20] = 1
    faint = 0.55 * true
    faint[:, 5] = 0.2
    metrics = edge_metrics(reach=0.03, thresholds=9)
    assert score(metrics["ods"], (true, true)) == 1
    assert score(metrics["ois"], (faint, true)) == 1
    invented = true.clone()
    invented[:, 5] = 1
    assert score(metrics["ods"], (invented, true)) == pytest.approx(2 * 0.5 / 1.5)
    nothing = torch.zeros_like(true)
    assert score(metrics["ods"], (nothing, true)) == 0
    assert math.isnan(score(metrics["ods"], (nothing, nothing)))
    assert set(EDGES) == {"ods", "ois"}
