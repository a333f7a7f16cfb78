"""Metrics of surface normals: the angle, in degrees, between prediction and ground truth.

Publications average in two ways: over all pixels of the data set (Bae et al. 2021; DSINE), in `NORMALS`, or over each
image and then over images (Ke et al. 2024), in `NORMALS_BY_IMAGE`. Both vectors are in the same frame and need not
be of unit length; the error of a zero prediction is 90 degrees.
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

# Degrees: percentages of pixels with an error strictly below are computed.
THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)

# The pooled median is computed from a histogram, whose sums are exact: the error is at most half a bin.
BIN = 0.01
_BINS = round(180 / BIN)


def angle(a: Tensor, b: Tensor, dim: int = -3) -> Tensor:
    """Angle between vectors along `dim`, in degrees from 0 to 180.

    2 atan2(|a - b|, |a + b|) of the unit vectors; the arc cosine is inaccurate near 0.
    """
    a, b = unit(a, dim), unit(b, dim)
    apart, together = (a - b).square().sum(dim).sqrt(), (a + b).square().sum(dim).sqrt()
    return torch.rad2deg(2 * torch.atan2(apart, together))


def _angles(x: MetricInput) -> Tensor:
    """The angular errors (n) of one image's valid pixels; n may be 0."""
    return torch.cat([torch.zeros(0, dtype=torch.float64), *(angle(p, n, dim=0) for p, n in x.blocks())])


def _sum(x: MetricInput) -> float:
    return float(x.cached(_angles).sum())


def _squares(x: MetricInput) -> float:
    angles = x.cached(_angles)
    return float(torch.dot(angles, angles))


def _percent(threshold: float, x: MetricInput) -> float:
    """100 times the number of angles strictly below the threshold."""
    return 100.0 * count(x.cached(_angles) < threshold)


def _over(total: Callable[[MetricInput], float], x: MetricInput) -> float:
    return total(x) / x.count


def _rmse(x: MetricInput) -> float:
    return math.sqrt(_squares(x) / x.count)


def _median(x: MetricInput) -> float:
    """The median angle; the mean of the middle two for an even number."""
    return float(np.median(x.cached(_angles).numpy()))


def _count_angles(x: MetricInput) -> Tensor:
    """Histogram of the angles with bins of BIN degrees, then 1 when there is no valid pixel."""
    bins = (x.cached(_angles) / BIN).long().clamp(max=_BINS - 1)
    return vector(torch.bincount(bins, minlength=_BINS), float(x.count == 0))


def _median_of_counts(total: Tensor) -> float:
    """The median of binned angles, in degrees; NaN when there are none."""
    below = total[:-1].cumsum(0)
    count = int(below[-1])
    if count == 0:
        return float("nan")
    # The middle two ranks (equal for an odd number), each at the centre of its bin.
    ranks = torch.tensor([(count - 1) // 2, count // 2], dtype=torch.float64)
    bins = torch.searchsorted(below, ranks, right=True)
    return float(((bins + 0.5) * BIN).mean())


def _percent_name(threshold: float) -> str:
    return f"below_{threshold:g}"


# Pooled over all pixels of the set.
NORMALS: dict[str, Metric] = {
    m.name: m
    for m in (
        sum_over_pixels("mean", "deg", "lower", _sum),
        Metric("median", "deg", "lower", _count_angles, _median_of_counts),
        sum_over_pixels("rmse", "deg", "lower", _squares, root_mean),
        *(sum_over_pixels(_percent_name(t), "%", "higher", partial(_percent, t)) for t in THRESHOLDS),
    )
}

# Averaged over images; the median is the mean of the images' medians.
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
