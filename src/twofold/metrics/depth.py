"""Scores of depth maps, and what a prediction known only up to scale and shift needs before it is scored.

Each score is computed on one image's valid pixels and then averaged over images, as published for
affine-invariant depth (Ranftl et al. 2020; Ke et al. 2024). p is the prediction and d the truth, in metres.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twofold.geometry import align_affine
from twofold.metrics.metric import Metric, mean_over_images

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


def _log_error(p: Tensor, d: Tensor) -> Tensor:
    """ln p - ln d; ValueError when one of them has no logarithm."""
    if not (bool((p > 0).all()) and bool((d > 0).all())):
        raise ValueError("a depth at a valid pixel is not positive; clip the prediction, mask the truth")
    return p.log() - d.log()


def _abs_rel(p: Tensor, d: Tensor) -> Tensor:
    return ((p - d).abs() / d).mean()


def _sq_rel(p: Tensor, d: Tensor) -> Tensor:
    # Over d, not d^2 (the KITTI development kit has the square).
    return ((p - d) ** 2 / d).mean()


def _rmse(p: Tensor, d: Tensor) -> Tensor:
    return ((p - d) ** 2).mean().sqrt()


def _rmse_log(p: Tensor, d: Tensor) -> Tensor:
    return (_log_error(p, d) ** 2).mean().sqrt()


def _log10(p: Tensor, d: Tensor) -> Tensor:
    return _log_error(p, d).abs().mean() / math.log(10)


def _silog(p: Tensor, d: Tensor) -> Tensor:
    # Centred first: the mean of squares less the squared mean would lose its digits. Times 100, lambda = 1.
    error = _log_error(p, d)
    return 100 * ((error - error.mean()) ** 2).mean().sqrt()


def _i_rmse(p: Tensor, d: Tensor) -> Tensor:
    return ((1 / p - 1 / d) ** 2).mean().sqrt()


def _within(power: int) -> Metric:
    """The share of pixels whose ratio to the truth, either way up, is strictly below 1.25^power."""

    def share(p: Tensor, d: Tensor) -> Tensor:
        return (torch.maximum(p / d, d / p) < 1.25**power).double().mean()

    return mean_over_images(f"delta{power}", "", "higher", share)


DEPTH: dict[str, Metric] = {
    "abs_rel": mean_over_images("abs_rel", "", "lower", _abs_rel),
    "sq_rel": mean_over_images("sq_rel", "m", "lower", _sq_rel),
    "rmse": mean_over_images("rmse", "m", "lower", _rmse),
    "rmse_log": mean_over_images("rmse_log", "", "lower", _rmse_log),
    "log10": mean_over_images("log10", "", "lower", _log10),
    "delta1": _within(1),
    "delta2": _within(2),
    "delta3": _within(3),
    "silog": mean_over_images("silog", "x100", "lower", _silog),
    "i_rmse": mean_over_images("i_rmse", "1/m", "lower", _i_rmse),
}
