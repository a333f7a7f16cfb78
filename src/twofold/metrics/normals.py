"""Scores of surface normals: the angle, in degrees, between prediction and ground truth.

Two ways to average are in print, and they differ: over all pixels of the data set (Bae et al. 2021; DSINE),
in `NORMALS`, and over each image first, then over images (Ke et al. 2024), in `NORMALS_BY_IMAGE`.
Neither vector needs to be of unit length, only both in one frame; a zero prediction is 90 degrees off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from twofold.geometry import unit
from twofold.metrics.metric import (
    Metric,
    MetricInput,
    count,
    mean_over_images,
    root_mean,
    sum_over_pixels,
    vector,
)

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


def _angles(x: MetricInput) -> Tensor:
    """The angles (n) of one image's valid pixels; none when it has none."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(angle(p, n, dim=0) for p, n in x.blocks())])


def _sum(x: MetricInput) -> float:
    return float(x.cached(_angles).sum())


def _squares(x: MetricInput) -> float:
    angles = x.cached(_angles)
    return float(torch.dot(angles, angles))


def _percent(threshold: float, x: MetricInput) -> float:
    """100 for each angle strictly below."""
    return 100.0 * count(x.cached(_angles) < threshold)


def _over(total: Callable[[MetricInput], float], x: MetricInput) -> float:
    return total(x) / x.count


def _rmse(x: MetricInput) -> float:
    return math.sqrt(_squares(x) / x.count)


def _median(x: MetricInput) -> float:
    """The median angle; of an even number, halfway between the middle two."""
    return float(np.median(x.cached(_angles).numpy()))


def _count_angles(x: MetricInput) -> Tensor:
    """How many valid pixels have an angle in each bin of BIN degrees, then whether there is none."""
    bins = (x.cached(_angles) / BIN).long().clamp(max=_BINS - 1)
    return vector(torch.bincount(bins, minlength=_BINS), float(x.count == 0))


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


def _percent_name(threshold: float) -> str:
    return f"below_{threshold:g}"


# Every pixel of the set weighs the same.
NORMALS: dict[str, Metric] = {
    m.name: m
    for m in (
        sum_over_pixels("mean", "deg", "lower", _sum),
        Metric("median", "deg", "lower", _count_angles, _median_of_counts),
        sum_over_pixels("rmse", "deg", "lower", _squares, root_mean),
        *(sum_over_pixels(_percent_name(t), "%", "higher", partial(_percent, t)) for t in THRESHOLDS),
    )
}

# Every image weighs the same; the median is the mean of the images' medians.
NORMALS_BY_IMAGE: dict[str, Metric] = {
    m.name: m
    for m in (
        mean_over_images("mean", "deg", "lower", partial(_over, _sum)),
        mean_over_images("median", "deg", "lower", _median),
        mean_over_images("rmse", "deg", "lower", _rmse),
        *(
            mean_over_images(_percent_name(t), "%", "higher", partial(_over, partial(_percent, t)))
            for t in THRESHOLDS
        ),
    )
}
