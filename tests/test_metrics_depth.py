"""Depth: fits by name, scores of large images, other averages, and occluding contours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from twofold.geometry import align_affine
from twofold.metrics import (
    ALIGNMENTS,
    BOUNDARIES,
    CAPS,
    DEPTH,
    DEPTH_POOLED,
    DEPTH_VARIANTS,
    Metric,
    fit_grid,
    measure_many,
    within_caps,
)
from twofold.metrics.alignment import l1_line


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, None]


def known(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def score(metric: Metric, p: Tensor, d: Tensor, v: Tensor | None = None) -> float:
    return metric.compute(metric.measure(p, d, known(d) if v is None else v))


def large(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """An image of more pixels than are looked at together, an edge of them invalid, and holes."""
    rng = torch.Generator().manual_seed(seed)
    d = 1 + 9 * torch.rand(1, 190, 201, generator=rng, dtype=torch.float64)
    p = d * (0.5 + torch.rand(d.shape, generator=rng, dtype=torch.float64))
    v = torch.rand(d.shape, generator=rng) > 0.3
    v[:, :95] = False
    return p, d, v


# ---- scores


def test_scores_of_a_large_image_are_their_formulas():
    p, d, v = large()
    a, b = p[v].numpy(), d[v].numpy()
    e = np.log(a) - np.log(b)
    expected = {
        "abs_rel": np.mean(abs(a - b) / b),
        "sq_rel": np.mean((a - b) ** 2 / b),
        "rmse": np.sqrt(np.mean((a - b) ** 2)),
        "rmse_log": np.sqrt(np.mean(e**2)),
        "log10": np.mean(abs(np.log10(a) - np.log10(b))),
        "silog": 100 * np.std(e),
        "i_rmse": np.sqrt(np.mean((1 / a - 1 / b) ** 2)),
        **{f"delta{k}": np.mean(np.maximum(a / b, b / a) < 1.25**k) for k in (1, 2, 3)},
        "silog_half": np.sqrt(np.mean(e**2) - 0.5 * np.mean(e) ** 2),
        "silog_sample": 100 * np.sqrt(np.var(e, ddof=1)),
    }
    table = {**DEPTH, **DEPTH_VARIANTS}
    assert set(expected) == set(table)
    parts = measure_many(table.values(), p, d, v)
    for name, value in expected.items():
        assert table[name].compute(parts[name]) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_predictions_of_any_precision_are_scored_as_their_numbers(dtype):
    p, d, v = large()
    p = p.to(dtype)
    for name, metric in DEPTH.items():
        assert score(metric, p, d, v) == pytest.approx(score(metric, p.double(), d, v), rel=1e-12), name


def test_silog_three_ways_of_two_pixels():
    p, d = line(1, 2), line(1, 1)
    assert score(DEPTH["silog"], p, d) == pytest.approx(34.65736, abs=1e-5)
    assert score(DEPTH_VARIANTS["silog_half"], p, d) == pytest.approx(0.4244642, abs=1e-7)
    assert score(DEPTH_VARIANTS["silog_sample"], p, d) == pytest.approx(49.01291, abs=1e-5)
    e = math.e
    assert score(DEPTH_VARIANTS["silog_half"], e * d, d) == pytest.approx(0.5**0.5)
    four = line(1.1, 2, 3, 6.25), line(1, 2, 4, 5)
    assert score(DEPTH_VARIANTS["silog_half"], *four) == pytest.approx(0.1880955, abs=1e-7)
    # One pixel has no variance over n - 1.
    assert math.isnan(score(DEPTH_VARIANTS["silog_sample"], line(2), line(1)))


def test_pixels_of_the_set_or_images_weigh_the_same():
    images = [(line(1.1), line(1)), (line(1.5, 1.5, 1.5), line(1, 1, 1))]
    for table, expected in ((DEPTH, 0.3), (DEPTH_POOLED, 0.4)):
        metric = table["abs_rel"]
        total = sum((metric.measure(p, d, known(d)) for p, d in images), torch.zeros(()))
        assert metric.compute(total) == pytest.approx(expected)
    images = [(line(1, 3), line(1, 2)), (line(2, 2, 2, 2), line(2, 2, 2, 2))]
    for table, expected in ((DEPTH, 0.3535534), (DEPTH_POOLED, 0.4082483)):
        metric = table["rmse"]
        total = sum((metric.measure(p, d, known(d)) for p, d in images), torch.zeros(()))
        assert metric.compute(total) == pytest.approx(expected, abs=1e-7)


def test_of_one_image_both_averages_are_one():
    p, d, v = large()
    for name, metric in DEPTH_POOLED.items():
        assert score(metric, p, d, v) == pytest.approx(score(DEPTH[name], p, d, v), rel=1e-12), name


def test_scores_without_a_logarithm_take_depths_without_one():
    p, d = line(-1, 2), line(1, 2)
    assert score(DEPTH["abs_rel"], p, d) == pytest.approx(1)
    assert score(DEPTH["rmse"], p, d) == pytest.approx(2**0.5)
    for name in ("log10", "rmse_log", "silog"):
        with pytest.raises(ValueError, match="not positive"):
            score(DEPTH[name], p, d)


# ---- fits


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_a_prediction_in_metres_stays_what_it_is(name):
    _, d, v = large()
    output = 1 / d if name == "disparity" else d
    assert torch.allclose(ALIGNMENTS[name](output, d, v, (1e-6, math.inf)), d, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [
        ("scale", 3.0, 0.0),
        ("median", 3.0, 0.0),
        ("moments", 3.0, 5.0),
        ("affine", -3.0, 50.0),
        ("l1", -3.0, 50.0),
    ],
)
def test_a_fit_does_not_see_what_it_fits(name, scale, shift):
    p, d, v = large()
    one = ALIGNMENTS[name](p, d, v, (1e-6, math.inf))
    assert torch.allclose(ALIGNMENTS[name](scale * p + shift, d, v, (1e-6, math.inf)), one, rtol=1e-9)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_every_fit_is_clipped_and_blind_to_what_is_not_known(name):
    p, d, v = large()
    fit = ALIGNMENTS[name]
    inside = fit(p, d, v, (2.0, 8.0))
    assert inside.dtype == torch.float64 and inside.shape == d.shape
    assert inside.min() >= 2 and inside.max() <= 8
    assert fit(p, d, v, (0.0, 8.0)).min() >= 1e-6
    spoiled = fit(torch.where(v, p, 77.0), torch.where(v, d, math.nan), v, (2.0, 8.0))
    assert torch.equal(spoiled[v], inside[v])
    with pytest.raises(ValueError, match="no valid pixel"):
        fit(p, d, torch.zeros_like(v), (2.0, 8.0))
    with pytest.raises(ValueError, match="NaN"):
        fit(torch.full_like(p, math.nan), d, v, (2.0, 8.0))


def test_fits_by_hand():
    d = line(1, 2, 4)
    anything = (1e-6, math.inf)
    assert torch.allclose(ALIGNMENTS["scale"](line(1, 1, 2), d, known(d), anything), line(11, 11, 22) / 6)
    assert torch.allclose(ALIGNMENTS["median"](line(1, 4, 5), d, known(d), anything), line(0.5, 2, 2.5))
    # Medians 2 and 5, mean deviations 1 and 2: halved, and 2 where it is 5.
    assert torch.allclose(ALIGNMENTS["moments"](line(3, 5, 9), d, known(d), anything), line(1, 2, 4))
    assert torch.allclose(ALIGNMENTS["moments"](line(3, 3, 3), d, known(d), anything), line(2, 2, 2))
    assert torch.allclose(ALIGNMENTS["l1"](line(3, 3, 3), d, known(d), anything), line(2, 2, 2))
    for name in ("scale", "median"):
        with pytest.raises(ValueError, match="cannot be scaled"):
            ALIGNMENTS[name](line(0, 0, 0), d, known(d), anything)


def test_the_disparity_fit_leaves_out_predictions_that_are_not_positive():
    """The positive three lie on 1 / d = 0.25 p exactly; 0 and -3 would pull the line away, and are scored too."""
    p, d = line(1, 2, 4, 0, -3), line(4, 2, 1, 1, 1)
    found = ALIGNMENTS["disparity"](p, d, known(d), (1e-6, math.inf))
    assert torch.allclose(found, line(4, 2, 1, 1000, 1000))  # aligned to at least 0.001 / m


def test_the_fast_fit_is_that_of_geometry():
    for seed, shift in ((0, 0.0), (1, 1e4)):
        p, d, v = large(seed)
        scale, offset = align_affine(p + shift, d, v)
        fitted = ALIGNMENTS["affine"](p + shift, d, v, (1e-6, math.inf))
        assert torch.allclose(fitted, ((p + shift) * scale + offset).clamp(min=1e-6), rtol=1e-7)
        residual = (fitted - d)[v]
        if fitted[v].min() > 1e-6:
            assert abs(residual.mean()) < 1e-8 and abs((residual * p[v]).mean()) < 1e-7


def test_the_least_sum_of_distances_is_that_of_a_linear_program():
    from scipy.optimize import linprog

    rng = np.random.default_rng(0)
    for trial in range(12):
        n = int(rng.integers(3, 30))
        p, d = rng.normal(size=(2, n))
        if trial % 3 == 0:
            p, d = np.round(2 * p), np.round(2 * d)  # many equal ones: the best line is one of several
        rows = np.block(
            [[p[:, None], np.ones((n, 1)), -np.eye(n)], [-p[:, None], -np.ones((n, 1)), -np.eye(n)]]
        )
        free = [(None, None)] * 2 + [(0, None)] * n
        best = linprog(np.r_[0, 0, np.ones(n)], A_ub=rows, b_ub=np.r_[d, -d], bounds=free).fun
        scale, shift = l1_line(torch.tensor(p), torch.tensor(d))
        assert np.abs(scale * p + shift - d).sum() == pytest.approx(best, rel=1e-8, abs=1e-9)


def test_wrong_truth_does_not_pull_the_robust_fit():
    _, d, v = large()
    p, wrong = (d - 3) / 2, d.clone()
    wrong[:, 100:110] += 40
    assert torch.allclose(ALIGNMENTS["l1"](p, wrong, v, (1e-6, math.inf)), d, rtol=1e-9)
    assert not torch.allclose(ALIGNMENTS["affine"](p, wrong, v, (1e-6, math.inf)), d, rtol=0.1)


def test_the_grid_that_a_fit_sees():
    width_only = fit_grid(4032, 6048, 1024, width_only=True)[0]
    assert (int(width_only.any(1).sum()), int(width_only.any(0).sum())) == (4032, 1024)
    both = fit_grid(4032, 6048, 1024)[0]
    assert (int(both.any(1).sum()), int(both.any(0).sum())) == (682, 1024)
    assert fit_grid(30, 40, 1024).all()
    _, d, v = large()
    assert torch.allclose(ALIGNMENTS["affine"](2 * d + 1, d, v & fit_grid(190, 201, 50), (1e-6, 99.0)), d)


def test_truth_counts_strictly_between_its_caps():
    d = line(1e-3, 0.5, 10, 9.999, math.nan, -1, math.inf)
    assert within_caps(d, CAPS["nyu"]).flatten().tolist() == [False, True, False, True, False, False, False]


# ---- boundaries


def step(ratio: float, at: int = 10) -> Tensor:
    """A wall in front of a farther one, to the right of a column."""
    d = torch.full((1, 16, 20), 2.0, dtype=torch.float64)
    d[..., at:] *= ratio
    return d


def published_f1(p: Tensor, d: Tensor) -> float:
    """The formula, direction by direction and step by step."""
    total, steps = 0.0, np.linspace(1.05, 1.25, 10)
    for t in steps:
        precision, recall = [], []
        for far, near in (
            ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
            ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
            ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
            ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ):
            output, true = (x[0].numpy()[far] / x[0].numpy()[near] > t for x in (p, d))
            precision.append((output & true).sum() / max(output.sum(), 1))
            recall.append((output & true).sum() / max(true.sum(), 1))
        a, b = np.mean(precision), np.mean(recall)
        total += t * (2 * a * b / (a + b) if a + b else 0.0)
    return total / steps.sum()


@pytest.mark.parametrize("seed", range(3))
def test_contours_are_those_of_the_formula(seed):
    rng = torch.Generator().manual_seed(seed)
    d = step(1.5) * (1 + 0.1 * torch.rand(1, 16, 20, generator=rng, dtype=torch.float64))
    p = d * (1 + 0.1 * torch.rand(d.shape, generator=rng, dtype=torch.float64))
    assert score(BOUNDARIES["boundary_f1"], p, d) == pytest.approx(published_f1(p, d), abs=1e-12)
    assert 0 < published_f1(p, d) < 1


def test_a_step_in_its_place_beside_it_and_too_small():
    d = step(1.5)
    # One of the four directions has a contour, and an average over all of them.
    assert score(BOUNDARIES["boundary_f1"], d, d) == pytest.approx(0.25)
    everywhere = d * torch.where(torch.arange(16) < 8, 1.0, 2.0)[:, None]
    everywhere = torch.cat([everywhere, everywhere.flip(-1)], -1)
    everywhere = torch.cat([everywhere, everywhere.flip(-2)], -2)
    assert score(BOUNDARIES["boundary_f1"], everywhere, everywhere) == pytest.approx(1)
    assert score(BOUNDARIES["boundary_f1"], step(1.5, at=11), d) == 0
    # Seen at the steps below 1.15 only.
    low = [t for t in np.linspace(1.05, 1.25, 10) if t < 1.15]
    part = 0.25 * sum(low) / np.linspace(1.05, 1.25, 10).sum()
    assert score(BOUNDARIES["boundary_f1"], step(1.15 - 1e-9), d) == pytest.approx(part)


def test_contours_do_not_see_scale_or_what_is_not_known():
    rng = torch.Generator().manual_seed(0)
    d = step(1.5) * (1 + 0.1 * torch.rand(1, 16, 20, generator=rng, dtype=torch.float64))
    p = d * (1 + 0.1 * torch.rand(d.shape, generator=rng, dtype=torch.float64))
    v = torch.rand(d.shape, generator=rng) > 0.1
    for metric in BOUNDARIES.values():
        one = score(metric, p, d, v)
        assert score(metric, 7 * p, d, v) == pytest.approx(one, abs=1e-12)
        assert score(metric, torch.where(v, p, math.nan), torch.where(v, d, -5.0), v) == one
        assert score(metric, 1 / p, 1 / d, v) == pytest.approx(one, abs=1e-12)
    # A hole in the target is not a contour.
    hole = known(d)
    hole[..., 10] = False
    assert math.isnan(score(BOUNDARIES["boundary_f1_pooled"], step(1.5), step(1.5), hole))


def test_images_without_a_contour_count_nothing_or_not_at_all():
    flat, d = torch.ones(1, 16, 20), step(1.5).float()
    for name, expected in (("boundary_f1", 0.125), ("boundary_f1_there", 0.25), ("boundary_f1_pooled", 0.25)):
        metric = BOUNDARIES[name]
        total = metric.measure(d, d, known(d)) + metric.measure(flat, flat, known(flat))
        assert metric.compute(total) == pytest.approx(expected), name


def test_depths_that_are_not_positive_have_no_contour():
    with pytest.raises(ValueError, match="not positive"):
        BOUNDARIES["boundary_f1"].measure(-step(1.5), step(1.5), known(step(1.5)))


def test_a_map_of_several_channels_is_no_depth():
    with pytest.raises(ValueError, match="1 channel"):
        DEPTH["rmse"].measure(torch.ones(3, 4, 4), torch.ones(3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
