"""Metrics of alpha mattes in [0, 1], as published for automatic matting (P3M, AIM; Rhemann et al. 2009).

All depend on the image's resolution, SAD, Grad and Conn on its area: compute them at the ground truth's resolution.
Grad and Conn count invalid pixels as correctly predicted background; the other scores ignore them. Each is computed per
image and averaged over images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean_over_images, metric_inputs, vector

# Width of the Gaussian whose derivatives are compared, in pixels.
SIGMA = 1.4
# An alpha that exceeds the pixel's level by less than this counts as fully connected.
DEAD_ZONE = 0.15
# 0 to 1 in tenths, with the rounding errors of repeated addition (0.30000000000000004) as in the published code.
LEVELS = np.arange(0, 1.1, 0.1)

Empty = Literal["skip", "zero"]
Map = NDArray[np.float64]


def gradient_error(p: Map, a: Map) -> float:
    """Grad: the sum over pixels of the squared difference of gradient magnitudes, divided by 10 (maps h w).

    Gradients are Gaussian derivatives of width SIGMA. Other tools, made for trimaps, divide by 1000 and scale the
    filter differently; their numbers are not comparable.
    """
    return float(np.square(_gradient(p) - _gradient(a)).sum() / 10)


def _gradient(x: Map) -> Map:
    from scipy.ndimage import gaussian_filter

    return np.hypot(*(gaussian_filter(x, sigma=SIGMA, order=order) for order in ((1, 0), (0, 1))))


def connectivity_error(p: Map, a: Map, empty: Empty = "skip") -> float:
    """Conn: the sum over pixels of the difference of connectivity, divided by 1000 (Rhemann et al. 2009).

    A pixel's level is the last threshold, in tenths, at which it belongs to the largest 4-connected region where both
    p and a reach the threshold. Alpha that exceeds the level by at least DEAD_ZONE is unconnected.

    Args:
        p: predicted alpha, h w.
        a: true alpha, h w.
        empty: handling of a threshold that no pixel reaches in both maps. ``skip``, as published, ignores the
            threshold, so a prediction of zeros has error 0; ``zero`` removes all pixels from the region.
    """
    from scipy.ndimage import label

    level = np.ones_like(p)
    inside = np.ones(p.shape, dtype=bool)
    for before, threshold in pairwise(LEVELS):
        regions, count = label((p >= threshold) & (a >= threshold))
        if count == 0 and empty == "skip":
            continue
        largest = regions == np.bincount(regions.ravel())[1:].argmax() + 1 if count else np.zeros_like(inside)
        level[inside & ~largest] = before
        inside &= largest
    return float(np.abs(_unconnected(p - level) - _unconnected(a - level)).sum() / 1000)


def _unconnected(above: Map) -> Map:
    return above * (above >= DEAD_ZONE)


def _sad(x: MetricInput) -> Tensor:
    return x.cached(_mad) * (x.count / 1000)


def _mad(x: MetricInput) -> Tensor:
    return (x.p - x.d).abs().mean()


def _mse(x: MetricInput) -> Tensor:
    return (x.p - x.d).square().mean()


def _on_images(score: Callable[[Map, Map], float], x: MetricInput) -> float:
    p, a = (m[0].numpy() for m in x.filled())
    return score(p, a)


def matting_metrics(empty: Empty = "skip") -> dict[str, Metric]:
    """The metrics by name; for `empty` see `connectivity_error`.

    sad   sum of |p - a|, in thousands
    mad   mean of |p - a|
    mse   mean of (p - a)^2; no root is taken
    grad  `gradient_error`
    conn  `connectivity_error`
    """
    conn = partial(connectivity_error, empty=empty)
    found = (
        mean_over_images("sad", "x1000", "lower", _sad),
        mean_over_images("mad", "", "lower", _mad),
        mean_over_images("mse", "", "lower", _mse),
        mean_over_images("grad", "", "lower", partial(_on_images, gradient_error)),
        mean_over_images("conn", "", "lower", partial(_on_images, conn)),
    )
    return {m.name: m for m in found}


def measure_in_trimap(
    prediction: Tensor, alpha: Tensor, trimap: Tensor, empty: Empty = "skip"
) -> dict[str, Tensor]:
    """The sums of all `matting_metrics` over the unknown region of a trimap.

    Elsewhere the prediction is replaced by the trimap. MAD and MSE are divided by the number of unknown pixels;
    an image without unknown pixels is skipped.

    Args:
        prediction: ``*b 1 h w``.
        alpha: ground truth, ``*b 1 h w``.
        trimap: ``*b 1 h w``: 0 background, 1 foreground, unknown between.
        empty: see `connectivity_error`.
    """
    unknown = (trimap > 0) & (trimap < 1)
    forced = torch.where(unknown, prediction, trimap.to(prediction))
    table = matting_metrics(empty)
    total = {name: torch.zeros(3, dtype=torch.float64) for name in table}
    for inputs in metric_inputs(forced, alpha, unknown):
        unknown_count = inputs.count
        whole = MetricInput(inputs.prediction, inputs.target, torch.ones_like(inputs.valid))
        for name, metric in table.items():
            # MAD and MSE are means over the whole image: rescale them to means over the unknown pixels.
            scale = whole.count / max(unknown_count, 1) if name in ("mad", "mse") else 1.0
            sums = whole.cached(metric.update) * vector(scale, 1, 1) if unknown_count else vector(0, 0, 1)
            total[name] = total[name] + sums
    return total


# As published, over the whole image.
MATTING: dict[str, Metric] = matting_metrics()
