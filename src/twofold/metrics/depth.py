"""Scores of depth maps, and what a prediction known only up to scale and shift needs before it is scored.

Those of `DEPTH` are computed on one image's valid pixels and then averaged over images, as published for
affine-invariant depth (Ranftl et al. 2020; Ke et al. 2024). p is the prediction and d the truth, in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from twofold.geometry import align_affine
from twofold.metrics.metric import Metric, Pair, mean_over_images, mean_over_pixels, root_mean

# A number for each valid pixel of an image.
PixelValues = Callable[[Pair], Tensor]

# Predictions are clipped to at least this many metres before any score with a logarithm or a ratio.
SMALLEST_DEPTH = 1e-6
# Aligned disparities are clipped to at least this (1/m) before they are inverted: nothing beyond 1000 m.
SMALLEST_DISPARITY = 1e-3

# Windows of the usual benchmarks as fractions of height and width: top, bottom, left, right. That of NYUv2 is
# given in pixels of its 480 x 640 images.
CROPS: dict[str, tuple[float, float, float, float]] = {
    "nyu_eigen": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
}


def crop_mask(name: str, height: int, width: int) -> Tensor:
    """The window CROPS[name] of an image, bool 1 h w: True inside."""
    if name not in CROPS:
        raise ValueError(f"no crop is called {name!r}; there are {', '.join(CROPS)}")
    top, bottom, left, right = CROPS[name]
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    # Truncated, as in the published evaluations; the tiny addend keeps 45/480 * 480 from becoming 44.
    rows = slice(int(top * height + 1e-9), int(bottom * height + 1e-9))
    mask[:, rows, int(left * width + 1e-9) : int(right * width + 1e-9)] = True
    return mask


def _clipped(depth: Tensor, clip: tuple[float, float]) -> Tensor:
    return depth.clamp(*clip).clamp(min=SMALLEST_DEPTH)


def affine_aligned(
    prediction: Tensor, target: Tensor, valid: Tensor, clip: tuple[float, float] = (SMALLEST_DEPTH, math.inf)
) -> Tensor:
    """One image's prediction (1 h w, any affine function of depth) in metres, float64.

    Scale and shift are those of least squares against `target` (metres) over `valid`; the scale may come out
    negative. The result is clipped to `clip` (metres) and to at least SMALLEST_DEPTH, to be scored.
    ValueError when no pixel is valid.
    """
    scale, shift = align_affine(prediction, target, valid)
    return _clipped(prediction.double() * scale + shift, clip)


def disparity_aligned(
    prediction: Tensor, target: Tensor, valid: Tensor, clip: tuple[float, float] = (SMALLEST_DEPTH, math.inf)
) -> Tensor:
    """One image's prediction (1 h w, any affine function of 1 / depth) in metres, float64.

    Scale and shift are fitted to 1 / target where `valid` and both are positive (as published); the aligned
    disparity is clipped to at least SMALLEST_DISPARITY and inverted, then clipped like `affine_aligned`.
    """
    fit = valid & (prediction > 0) & (target > 0)
    inverse = 1 / torch.where(fit, target, 1.0).double()
    scale, shift = align_affine(prediction, inverse, fit)
    disparity = (prediction.double() * scale + shift).clamp(min=SMALLEST_DISPARITY)
    return _clipped(1 / disparity, clip)


def _error(x: Pair) -> Tensor:
    return x.p - x.d


def _log_error(x: Pair) -> Tensor:
    """ln p - ln d; ValueError when one of them has no logarithm."""
    if not (float(x.p.min()) > 0 and float(x.d.min()) > 0):
        raise ValueError("a depth at a valid pixel is not positive; clip the prediction, mask the truth")
    return x.p.log() - x.d.log()


def _squares(x: Pair) -> Tensor:
    return x.once(_error).square()


def _log_squares(x: Pair) -> Tensor:
    return x.once(_log_error).square()


def _relative(x: Pair) -> Tensor:
    return x.once(_error).abs() / x.d


def _relative_squares(x: Pair) -> Tensor:
    # Over d, not d^2 (the KITTI development kit has the square).
    return x.once(_squares) / x.d


def _decades(x: Pair) -> Tensor:
    return x.once(_log_error).abs() / math.log(10)


def _inverse_squares(x: Pair) -> Tensor:
    return (1 / x.p - 1 / x.d).square_()


def _ratio(x: Pair) -> Tensor:
    """Prediction to truth, the larger over the smaller."""
    return torch.maximum(x.p / x.d, x.d / x.p)


def _within(limit: float, x: Pair) -> Tensor:
    return (x.once(_ratio) < limit).double()


def _mean_of(values: PixelValues, x: Pair) -> Tensor:
    return x.once(values).mean()


def _root_mean_of(values: PixelValues, x: Pair) -> Tensor:
    return x.once(values).mean().sqrt()


def _share_within(limit: float, x: Pair) -> float:
    return float((x.once(_ratio) < limit).sum()) / x.count


def _spread(weight: float, x: Pair) -> Tensor:
    """The mean of squared log errors less `weight` times their squared mean."""
    error = x.once(_log_error)
    middle = error.mean()
    # Centred first: the mean of squares less the squared mean would lose its digits.
    return (error - middle).square_().mean() + (1 - weight) * middle**2


def _silog(x: Pair) -> Tensor:
    return 100 * _spread(1.0, x).sqrt()


def _silog_half(x: Pair) -> Tensor:
    return _spread(0.5, x).sqrt()


def _silog_sample(x: Pair) -> Tensor:
    return 100 * x.once(_log_error).std()


# Each with what it says of one pixel; those called rms are the root of a mean of squares.
_MEANS: tuple[tuple[str, str, PixelValues], ...] = (
    ("abs_rel", "", _relative),
    ("sq_rel", "m", _relative_squares),
    ("log10", "", _decades),
)
_ROOTS: tuple[tuple[str, str, PixelValues], ...] = (
    ("rmse", "m", _squares),
    ("rmse_log", "", _log_squares),
    ("i_rmse", "1/m", _inverse_squares),
)
# The share of pixels whose ratio to the truth, either way up, is strictly below 1.25^k; in print also a1, a2, a3.
_LIMITS = tuple((f"delta{k}", 1.25**k) for k in (1, 2, 3))

# Every image weighs the same.
DEPTH: dict[str, Metric] = {
    m.name: m
    for m in (
        *(mean_over_images(n, unit, "lower", partial(_mean_of, f)) for n, unit, f in _MEANS),
        *(mean_over_images(n, unit, "lower", partial(_root_mean_of, f)) for n, unit, f in _ROOTS),
        *(mean_over_images(n, "", "higher", partial(_share_within, limit)) for n, limit in _LIMITS),
        mean_over_images("silog", "x100", "lower", _silog),
    )
}

# Every pixel weighs the same, and a root is taken once, at the end (multi-task benchmarks: InvPT, MTI-Net).
DEPTH_POOLED: dict[str, Metric] = {
    m.name: m
    for m in (
        *(mean_over_pixels(n, unit, "lower", f) for n, unit, f in _MEANS),
        *(replace(mean_over_pixels(n, unit, "lower", f), conclude=root_mean) for n, unit, f in _ROOTS),
        *(mean_over_pixels(n, "", "higher", partial(_within, limit)) for n, limit in _LIMITS),
    )
}

# Scores that share a name with one of `DEPTH` in print and are another number.
DEPTH_VARIANTS: dict[str, Metric] = {
    m.name: m
    for m in (
        # lambda = 0.5 and not times 100: VPD, GLPDepth, Depth Anything V2.
        mean_over_images("silog_half", "", "lower", _silog_half),
        # The variance over n - 1, times 100: Diff-2-in-1. Undefined for one pixel.
        mean_over_images("silog_sample", "x100", "lower", _silog_sample),
    )
}
