"""Sets of images: distances in closed form, against scipy, and as sums over parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from twofold.metrics import Features, Moments, diversity, fid, kid, kid_of_subsets, mean_distance


def cloud(count: int = 60, size: int = 5, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Features:
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=rng, dtype=torch.float64)
    return Features(scale * torch.randn(count, size, generator=rng, dtype=torch.float64) @ mix + shift)


def exactly(mean: Tensor, covariance: Tensor, count: int = 10) -> Moments:
    return Moments(count, count * mean, (count - 1) * covariance + count * torch.outer(mean, mean))


# ---- FID


def test_moments_are_mean_and_covariance():
    rows = cloud().rows
    got = Features(rows).moments
    torch.testing.assert_close(got.mean, rows.mean(0))
    torch.testing.assert_close(got.covariance, torch.cov(rows.T))


def test_gaussians_with_independent_numbers_have_a_closed_form():
    a, b = torch.tensor([1.0, 4, 9]).double(), torch.tensor([4.0, 4, 1]).double()
    one, two = (
        exactly(torch.zeros(3).double(), a.diag()),
        exactly(torch.tensor([1.0, 2, 0]).double(), b.diag()),
    )
    assert fid(one, two) == pytest.approx(5 + float((a.sqrt() - b.sqrt()).square().sum()))
    assert fid(one, two) == pytest.approx(fid(two, one))


def test_the_distance_is_that_of_the_matrix_root():
    from scipy.linalg import sqrtm

    a, b = cloud(seed=1).moments, cloud(seed=2, scale=1.5, shift=0.3).moments
    root = np.real(sqrtm((a.covariance @ b.covariance).numpy()))
    expected = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * np.trace(root)
    assert fid(a, b) == pytest.approx(float(expected), rel=1e-7)


def test_a_set_is_at_no_distance_from_itself():
    a = cloud().moments
    assert fid(a, a) == pytest.approx(0, abs=1e-9)
    # Fewer images than dimensions: the covariance has no inverse, and needs none.
    few = cloud(count=4, size=20).moments
    assert fid(few, few) == pytest.approx(0, abs=1e-6)
    moved = Features(cloud().rows + 2.0).moments
    assert fid(a, moved) == pytest.approx(4 * 5, rel=1e-9)


def test_what_no_number_can_be_made_of_is_refused():
    one = cloud(count=1)
    for wrong in (
        lambda: fid(one.moments, one.moments),
        lambda: kid(one, one),
        lambda: mean_distance(one),
        lambda: diversity(one.moments),
        lambda: Features.of([], lambda x: x),
        lambda: Features.of([torch.rand(2, 3, 4, 4)], lambda x: x),
        lambda: Features(torch.full((2, 3), math.nan)),
    ):
        with pytest.raises(ValueError):
            wrong()


# ---- KID


def kernel(x: Tensor, y: Tensor) -> float:
    return (float(x @ y) / len(x) + 1) ** 3


def test_the_kernel_distance_is_the_sum_over_pairs():
    a, b = cloud(count=7, seed=1), cloud(count=5, seed=2, shift=0.5)
    within = [
        sum(kernel(x, y) for i, x in enumerate(s.rows) for j, y in enumerate(s.rows) if i != j)
        / (len(s.rows) * (len(s.rows) - 1))
        for s in (a, b)
    ]
    between = sum(kernel(x, y) for x in a.rows for y in b.rows) / 35
    assert kid(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    a, b = cloud(seed=1), cloud(seed=2)
    one, apart = kid(a, b), mean_distance(a)
    monkeypatch.setattr("twofold.metrics.generation.ROWS", 7)
    assert kid(a, b) == pytest.approx(one, rel=1e-9) and mean_distance(a) == pytest.approx(apart, rel=1e-12)


def test_the_estimate_is_unbiased():
    numbers = []
    for seed in range(300):
        rng = torch.Generator().manual_seed(seed)
        draw = [Features(torch.randn(6, 3, generator=rng, dtype=torch.float64)) for _ in range(2)]
        numbers.append(kid(*draw))
    mean, error = np.mean(numbers), np.std(numbers) / math.sqrt(300)
    assert abs(mean) < 3 * error and min(numbers) < 0


def test_subsets_estimate_the_same_number():
    a, b = cloud(count=200, seed=1), cloud(count=150, seed=2, shift=0.5)
    mean, spread = kid_of_subsets(a, b, subsets=200, size=60)
    assert mean == pytest.approx(kid(a, b), abs=4 * spread / math.sqrt(200))
    assert kid_of_subsets(a, b, subsets=3, size=1000) == kid_of_subsets(a, b, subsets=3, size=1000)
    whole, none = kid_of_subsets(a, Features(a.rows.clone()), subsets=3, size=1000)
    assert whole == pytest.approx(kid(a, a), rel=1e-9) and none == pytest.approx(0, abs=1e-9)


# ---- diversity


def test_distances_of_three_points():
    triangle = Features(torch.tensor([[0.0, 0], [3, 0], [0, 4]]))
    assert mean_distance(triangle) == pytest.approx((3 + 4 + 5) / 3)
    assert diversity(triangle.moments) == pytest.approx(math.sqrt((9 + 16 + 25) / 3))


def test_repeated_images_have_no_diversity():
    same = Features(torch.ones(9, 4))
    assert mean_distance(same) == 0 and diversity(same.moments) == 0
    spread = cloud()
    assert mean_distance(spread) <= diversity(spread.moments)


# ---- parts


def test_parts_add_in_any_split_and_order():
    real, made = cloud(seed=1), cloud(seed=2, scale=1.3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    mixed = made.rows[order]
    parts = Features(mixed[:13]) + Features(mixed[13:])
    moments = Features(mixed[:13]).moments + Features(mixed[13:]).moments
    assert fid(real.moments, moments) == pytest.approx(fid(real.moments, made.moments), rel=1e-9)
    assert kid(real, parts) == pytest.approx(kid(real, made), rel=1e-9)
    assert diversity(moments) == pytest.approx(diversity(made.moments), rel=1e-9)
    assert mean_distance(parts) == pytest.approx(mean_distance(made), rel=1e-9)


def test_features_of_a_user_defined_network():
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(10, 3, 8, 8, generator=rng)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    whole = Features.of([images], network)
    assert whole.rows.shape == (10, 12) and whole.rows.dtype == torch.float64
    batches = Features.of(images.split(3), network)
    torch.testing.assert_close(batches.rows, whole.rows)
