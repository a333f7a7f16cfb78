"""Scores of mattes, alpha in [0, 1], as the tables of automatic matting print them (P3M, AIM; Rhemann et al. 2009).

All of them depend on the size of the image, SAD, Grad and Conn on its area: they are measured at the size of the
truth, never at a network's. Pixels that are not valid count as background that was rightly called so in Grad and Conn,
and do not count elsewhere. One number an image, then the mean over images.
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
# The connectivity of two pixels that differ less than this from the shared region's level is the same.
DEAD_ZONE = 0.15
# From 0 to 1 in tenths, as they come out of repeated addition: 0.30000000000000004 is one of them.
LEVELS = np.arange(0, 1.1, 0.1)

Empty = Literal["skip", "zero"]
Map = NDArray[np.float64]


def gradient_error(p: Map, a: Map) -> float:
    """Grad: the squared difference of the gradients' lengths, summed and divided by 10 (h w each).

    Gradients are those of a Gaussian of width SIGMA. Other tools, made for trimaps, divide by 1000 and scale the
    filter otherwise; their numbers are not comparable.
    """
    return float(np.square(_gradient(p) - _gradient(a)).sum() / 10)


def _gradient(x: Map) -> Map:
    from scipy.ndimage import gaussian_filter

    return np.hypot(*(gaussian_filter(x, sigma=SIGMA, order=order) for order in ((1, 0), (0, 1))))


def connectivity_error(p: Map, a: Map, empty: Empty = "skip") -> float:
    """Conn: how differently the pixels hang together with what both call foreground, summed and divided by 1000.

    A pixel's level is the last threshold, in tenths, at which it is in the largest (4-connected) region where both
    p and a reach the threshold. What exceeds the level by at least DEAD_ZONE is unconnected.

    Args:
        p: predicted alpha, h w.
        a: true alpha, h w.
        empty: what happens at a threshold that no pixel reaches in both. ``skip``, as published, does nothing, so
            that a prediction of zeros has no error at all; ``zero`` takes all the pixels out of the region.
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
    """The scores by name; for `empty` see `connectivity_error`.

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
    """The parts of all scores of `matting_metrics` where a trimap leaves open what is foreground.

    Elsewhere the prediction is what the trimap says. MAD and MSE are divided by the number of unknown pixels;
    an image without any is skipped.

    Args:
        prediction: ``*b 1 h w``.
        alpha: the truth, ``*b 1 h w``.
        trimap: ``*b 1 h w``: 0 background, 1 foreground, anything between unknown.
        empty: see `connectivity_error`.
    """
    unknown = (trimap > 0) & (trimap < 1)
    forced = torch.where(unknown, prediction, trimap.to(prediction))
    table = matting_metrics(empty)
    total = {name: torch.zeros(3, dtype=torch.float64) for name in table}
    for inputs in metric_inputs(forced, alpha, unknown):
        open_pixels = inputs.count
        whole = MetricInput(inputs.prediction, inputs.target, torch.ones_like(inputs.valid))
        for name, metric in table.items():
            # Sums over the image: the means over it are of the wrong number of pixels.
            scale = whole.count / max(open_pixels, 1) if name in ("mad", "mse") else 1.0
            sums = whole.cached(metric.update) * vector(scale, 1, 1) if open_pixels else vector(0, 0, 1)
            total[name] = total[name] + sums
    return total


# As published, over the whole image.
MATTING: dict[str, Metric] = matting_metrics()
