"""Scores of surface normals: the angle, in degrees, between what was predicted and what is there.

Two ways to average are in print, and they differ: over all pixels of the data set (Bae et al. 2021; DSINE),
in `NORMALS`, and over each image first, then over images (Ke et al. 2024), in `NORMALS_BY_IMAGE`.
Neither vector needs to be of unit length, only both in one frame; a zero prediction is 90 degrees off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twofold.geometry import unit
from twofold.metrics.metric import Metric, mean_over_images, mean_over_pixels, valid_pixels

# Percentages are printed of the pixels strictly below each of these, in degrees.
THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)

# The pooled median comes from a histogram, because its sum is exact and small: off by half a bin at most.
BIN = 0.01
_BINS = round(180 / BIN)


def angle(a: Tensor, b: Tensor, dim: int = -3) -> Tensor:
    """Degrees between vectors along `dim`, from 0 to 180.

    2 atan2(|a - b|, |a + b|) of the unit vectors: the arc cosine loses half the digits near 0.
    """
    a, b = unit(a, dim), unit(b, dim)
    apart, together = (a - b).square().sum(dim).sqrt(), (a + b).square().sum(dim).sqrt()
    return torch.rad2deg(2 * torch.atan2(apart, together))


def _angles(p: Tensor, n: Tensor) -> Tensor:
    """The angles (n) of one image's valid pixels (n 3)."""
    return angle(p, n, dim=-1)


def _median(p: Tensor, n: Tensor) -> Tensor:
    """The median angle; of an even number, halfway between the middle two."""
    ordered = _angles(p, n).sort().values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _count_angles(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """How many valid pixels have an angle in each bin of BIN degrees, then the skipped images."""
    total = torch.zeros(_BINS + 1, dtype=torch.float64)
    for p, n in valid_pixels(prediction, target, valid):
        bins = (_angles(p, n) / BIN).long().clamp(max=_BINS - 1)
        total[:-1] += torch.bincount(bins, minlength=_BINS)
        total[-1] += len(p) == 0
    return total


def _median_of_counts(total: Tensor) -> float:
    """The median of binned angles, in degrees; NaN when there are none."""
    below = total[:-1].cumsum(0)
    count = int(below[-1])
    if count == 0:
        return float("nan")
    # The middle two (the same one twice, when their number is odd), each at the centre of its bin.
    ranks = torch.tensor([(count - 1) // 2, count // 2], dtype=torch.float64)
    bins = torch.searchsorted(below, ranks, right=True)
    return float(((bins + 0.5) * BIN).mean())


def _root(total: Tensor) -> float:
    return math.sqrt(total[0] / total[1]) if total[1] > 0 else float("nan")


def _percent_name(threshold: float) -> str:
    return f"below_{threshold:g}"


def _pooled() -> dict[str, Metric]:
    squares = mean_over_pixels("rmse", "deg", "lower", lambda p, n: _angles(p, n).square())
    return {
        "mean": mean_over_pixels("mean", "deg", "lower", _angles),
        "median": Metric("median", "deg", "lower", _count_angles, _median_of_counts),
        "rmse": Metric("rmse", "deg", "lower", squares.measure, _root),
        **{
            _percent_name(t): mean_over_pixels(
                _percent_name(t), "%", "higher", lambda p, n, t=t: 100.0 * (_angles(p, n) < t)
            )
            for t in THRESHOLDS
        },
    }


def _by_image() -> dict[str, Metric]:
    return {
        "mean": mean_over_images("mean", "deg", "lower", lambda p, n: _angles(p, n).mean()),
        "median": mean_over_images("median", "deg", "lower", _median),
        "rmse": mean_over_images("rmse", "deg", "lower", lambda p, n: _angles(p, n).square().mean().sqrt()),
        **{
            _percent_name(t): mean_over_images(
                _percent_name(t), "%", "higher", lambda p, n, t=t: 100 * (_angles(p, n) < t).double().mean()
            )
            for t in THRESHOLDS
        },
    }


NORMALS: dict[str, Metric] = _pooled()
NORMALS_BY_IMAGE: dict[str, Metric] = _by_image()
