"""Deviations of published evaluation code from the metric of that name, to reproduce its numbers.

None of these metrics is used unless it is selected by name.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean, mean_over_pixels, vector
from twofold.metrics.normals import NORMALS, NORMALS_BY_IMAGE, angle
from twofold.metrics.saliency import BETA2, foreground, minmax_normalized

# IS-Net's valid() uses 255 bins from 0 to 255 for 256 levels, and adds an epsilon to each denominator.
ISNET_BINS = 255
ISNET_EPSILON = 1e-4
# Factor from degrees to radians times 180 / 3.14.
SHORT_PI = math.pi / 3.14


def _short_pi(x: MetricInput) -> Tensor:
    return angle(x.p, x.d, dim=0) * SHORT_PI


def to_levels(vectors: Tensor) -> Tensor:
    """Levels 0 to 255 of vectors in [-1, 1] that are stored in 8 bits."""
    return ((vectors + 1) * 127.5).round().clamp(0, 255)


def _quantize(vectors: Tensor) -> Tensor:
    """Vectors after rounding to 8 bits per component."""
    return to_levels(vectors.double()) / 127.5 - 1


def _update_quantized(metric: Metric, x: MetricInput) -> Tensor:
    """The sums of `metric` for predictions rounded to 8 bits."""
    return metric.update(MetricInput(_quantize(x.prediction), x.target, x.valid))


def _below_quantized(threshold: float, x: MetricInput) -> Tensor:
    return 100.0 * (angle(_quantize(x.p), x.d, dim=0) * SHORT_PI < threshold)


def _compute_short_pi(metric: Metric, total: Tensor) -> float:
    return metric.compute(total) * SHORT_PI


def _at_most_90(x: MetricInput) -> Tensor:
    return angle(x.p, x.d, dim=0).clamp(max=90)


def _rounded(metric: Metric, x: MetricInput) -> Tensor:
    sums = metric.update(x)
    return vector(round(float(sums[0]), 4), *sums[1:])


def _isnet_update(x: MetricInput) -> Tensor:
    """[precision and recall at each bin, images, skipped]."""
    if not x.count:
        return vector(torch.zeros(2 * ISNET_BINS), 0, 1)
    level, g = x.cached(minmax_normalized) * 255, x.cached(foreground)
    hit, false = (torch.histc(level[mask], ISNET_BINS, 0, 255).flip(0).cumsum(0) for mask in (g, ~g))
    return vector(hit / (hit + false + ISNET_EPSILON), hit / (int(g.sum()) + ISNET_EPSILON), 1, 0)


def _isnet_max_f(total: Tensor) -> float:
    precision, recall = (total[:-2] / total[-2]).chunk(2)
    return float(((1 + BETA2) * precision * recall / (BETA2 * precision + recall + ISNET_EPSILON)).max())


QUIRKS: dict[str, Metric] = {
    m.name: m
    for m in (
        # Diff-2-in-1 multiplies radians by 180 / 3.14: a right angle becomes 90.046 degrees.
        mean_over_pixels("normals_mean_short_pi", "deg", "lower", _short_pi),
        # Diff-2-in-1 scores normals that were written as 8-bit images.
        *(
            Metric(
                f"normals_{name}_of_bytes",
                "deg",
                "lower",
                partial(_update_quantized, metric),
                partial(_compute_short_pi, metric),
            )
            for name, metric in NORMALS.items()
            if name in ("mean", "median", "rmse")
        ),
        *(
            mean_over_pixels(
                f"normals_below_{threshold:g}_of_bytes", "%", "higher", partial(_below_quantized, threshold)
            )
            for threshold in (11.25, 22.5, 30.0)
        ),
        # DMP's evaluation clamps the cosine to [0, 1], so no error exceeds 90 degrees.
        mean_over_pixels("normals_mean_at_most_90", "deg", "lower", _at_most_90),
        # Marigold rounds each image's number to four digits before averaging.
        *(
            Metric(f"normals_{name}_rounded", "deg", "lower", partial(_rounded, NORMALS_BY_IMAGE[name]), mean)
            for name in ("mean", "median")
        ),
        Metric("max_f_isnet", "", "higher", _isnet_update, _isnet_max_f),
    )
}
