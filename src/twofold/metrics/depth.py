"""Depth metrics, and the least-squares alignments of predictions that are known up to scale and shift.

Metrics of `DEPTH` are computed on one image's valid pixels and then averaged over images, as published for
affine-invariant depth (Ranftl et al. 2020; Ke et al. 2024). p is the prediction and d the target, in metres.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from twofold.geometry import align_affine
from twofold.metrics.metric import Metric, MetricInput, count, mean_over_images, root_mean, sum_over_pixels

# Predictions are clipped to at least this many metres before any score with a logarithm or a ratio.
SMALLEST_DEPTH = 1e-6
# Aligned disparities are clipped to at least this (1/m) before they are inverted, so no depth exceeds 1000 m.
SMALLEST_DISPARITY = 1e-3

# Evaluation windows of common benchmarks as fractions of height and width: top, bottom, left, right. That of NYUv2
# is defined in pixels of its 480 x 640 images.
CROPS: dict[str, tuple[float, float, float, float]] = {
    "nyu_eigen": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
}


def crop_mask(name: str, height: int, width: int) -> Tensor:
    """The window CROPS[name] of an image, bool 1 h w: True inside. ValueError for an unknown name."""
    if name not in CROPS:
        raise ValueError(f"unknown crop {name!r}; expected {', '.join(CROPS)}")
    top, bottom, left, right = CROPS[name]
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    # Truncated, as in the published evaluations; the tiny addend keeps 45/480 * 480 from becoming 44.
    rows = slice(int(top * height + 1e-9), int(bottom * height + 1e-9))
    mask[:, rows, int(left * width + 1e-9) : int(right * width + 1e-9)] = True
    return mask


def clipped(depth: Tensor, clip: tuple[float, float] = (SMALLEST_DEPTH, math.inf)) -> Tensor:
    """Depth clipped to `clip` (metres) and to at least SMALLEST_DEPTH."""
    return depth.clamp(max(clip[0], SMALLEST_DEPTH), max(clip[1], SMALLEST_DEPTH))


def affine_aligned(
    prediction: Tensor, target: Tensor, valid: Tensor, clip: tuple[float, float] = (SMALLEST_DEPTH, math.inf)
) -> Tensor:
    """One image's prediction (1 h w, an affine function of depth) in metres, float64.

    Scale and shift are fitted by least squares to `target` (metres) over `valid`; the scale may be negative. The
    result is clipped to `clip` (metres) and to at least SMALLEST_DEPTH. ValueError when no pixel is valid.
    """
    scale, shift = _fit(prediction, target, valid)
    return clipped(_line(prediction, scale, shift), clip)


def disparity_aligned(
    prediction: Tensor, target: Tensor, valid: Tensor, clip: tuple[float, float] = (SMALLEST_DEPTH, math.inf)
) -> Tensor:
    """One image's prediction (1 h w, an affine function of 1 / depth) in metres, float64.

    Scale and shift are fitted to 1 / target where `valid` and both are positive (as published); the aligned
    disparity is clipped to at least SMALLEST_DISPARITY and inverted, then clipped like `affine_aligned`.
    """
    # Not "> 0", so that NaN is included and raises an error.
    fit = valid & ~(prediction <= 0) & ~(target <= 0)
    inverse = 1 / torch.where(fit, target, 1.0).double()
    scale, shift = _fit(prediction, inverse, fit)
    disparity = _line(prediction, scale, shift).clamp_(min=SMALLEST_DISPARITY)
    return clipped(disparity.reciprocal_(), clip)


def _fit(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[float, float]:
    """`geometry.align_affine` up to rounding, from sums over blocks: about four times faster."""
    total = np.array(
        [_sums_of_fit(p.flatten(), d.flatten()) for p, d in MetricInput(prediction, target, valid).blocks()]
    )
    if len(total):
        sizes, means = total[:, 0], total[:, 1:3]
        middle = (sizes[:, None] * means).sum(0) / sizes.sum()
        # Combine the centred sums of the blocks (Chan et al. 1979).
        off = (means - middle) * np.sqrt(sizes)[:, None]
        squares, products = total[:, 3:5].sum(0) + (off[:, :1] * off).sum(0)
        if squares > sizes.sum() * (1e-12 * total[:, 5].max()) ** 2:
            scale = float(products / squares)
            return scale, float(middle[1] - scale * middle[0])
    # No valid pixel or a constant prediction: align_affine handles both.
    return align_affine(prediction, target, valid)


def _sums_of_fit(p: Tensor, d: Tensor) -> list[float]:
    """For a block of pixels (n): their number, both means, the sums of centred p^2 and p d, and the largest |p|."""
    largest, means = float(p.abs().max()), (float(p.mean()), float(d.mean()))
    p, d = p - means[0], d - means[1]
    return [len(p), *means, float(torch.dot(p, p)), float(torch.dot(p, d)), largest]


def _line(x: Tensor, scale: float, shift: float) -> Tensor:
    # In place, because a new map costs more than the arithmetic.
    return (x.double() * scale).add_(shift)


# The entries of `_sums`.
_ENTRIES = (
    "relative", "relative_squares", "squares", "inverse_squares", "within1", "within2", "within3",
    "logs", "log_squares", "log_centred",
)  # fmt: skip
# Thresholds of delta1 to delta3 (also called a1 to a3): share of pixels with max(p / d, d / p) strictly below 1.25^k.
LIMITS = (1.25, 1.25**2, 1.25**3)


def _sums(x: MetricInput) -> dict[str, float]:
    """Sums over one image's valid pixels from which all depth scores are computed.

    The sums of log errors are NaN when a depth is not positive. ValueError when the maps have more than one channel.
    """
    if len(x.prediction) != 1:
        raise ValueError(f"a depth map has 1 channel, this one {len(x.prediction)}")
    blocks = np.array([_sums_of_block(p[0], d[0]) for p, d in x.blocks()])
    sizes, means = blocks[:, -2], blocks[:, -1]
    total = dict(zip(_ENTRIES, blocks[:, : len(_ENTRIES)].sum(0).tolist(), strict=True))
    # Combine the centred sums of the blocks: the mean of squares minus the squared mean would lose precision.
    middle = (sizes * means).sum() / sizes.sum()
    total["log_centred"] += float((sizes * (means - middle) ** 2).sum())
    return total


def _sums_of_block(p: Tensor, d: Tensor) -> list[float]:
    """The entries of `_sums` for a block of pixels (n), then their number and the mean of ln p - ln d."""
    error, ratio = p - d, p / d
    relative = error / d
    found = [torch.dot(error, relative), torch.dot(error, error)]
    found.insert(0, relative.abs_().sum())
    inverse = (p * d).reciprocal_().mul_(error)
    found.append(torch.dot(inverse, inverse))
    either = torch.maximum(ratio, d / p)
    within = [count(either < limit) for limit in LIMITS]
    if not (float(p.min()) > 0 and float(d.min()) > 0):
        return [*map(float, found), *within, *[math.nan] * 3, len(p), math.nan]
    log = ratio.log_()
    squares, middle = float(torch.dot(log, log)), float(log.mean())
    logs = log.abs().sum()
    log -= middle
    return [*map(float, found), *within, float(logs), squares, float(torch.dot(log, log)), len(p), middle]


def _sum(entry: str, x: MetricInput) -> float:
    """An entry of `_sums`; ValueError when it needs the logarithm of a depth that is not positive."""
    total = x.cached(_sums)[entry]
    if math.isnan(total):
        raise ValueError("a depth at a valid pixel is not positive; clip the prediction, mask the truth")
    return total


def _mean(entry: str, x: MetricInput) -> float:
    return _sum(entry, x) / x.count


def _root_mean(entry: str, x: MetricInput) -> float:
    return math.sqrt(_mean(entry, x))


def _log10_sum(x: MetricInput) -> float:
    return _sum("logs", x) / math.log(10)


def _log10(x: MetricInput) -> float:
    return _log10_sum(x) / x.count


def _silog(x: MetricInput) -> float:
    return 100 * _root_mean("log_centred", x)


def _silog_half(x: MetricInput) -> float:
    # mean(x^2) - mean(x)^2 / 2 = (mean(x^2) + variance) / 2
    return math.sqrt((_mean("log_squares", x) + _mean("log_centred", x)) / 2)


def _silog_sample(x: MetricInput) -> float:
    return 100 * math.sqrt(_sum("log_centred", x) / (x.count - 1)) if x.count > 1 else math.nan


# (name, unit, entry of `_sums`) of the scores that are a mean over pixels, or the root of one.
_MEANS = (("abs_rel", "", "relative"), ("sq_rel", "m", "relative_squares"))
_ROOTS = (("rmse", "m", "squares"), ("rmse_log", "", "log_squares"), ("i_rmse", "1/m", "inverse_squares"))
_SHARES = tuple((f"delta{k}", f"within{k}") for k in (1, 2, 3))

# Averaged over images. sq_rel is (p - d)^2 / d, not / d^2 as in the KITTI development kit; silog has lambda = 1.
DEPTH: dict[str, Metric] = {
    m.name: m
    for m in (
        *(mean_over_images(n, unit, "lower", partial(_mean, entry)) for n, unit, entry in _MEANS),
        *(mean_over_images(n, unit, "lower", partial(_root_mean, entry)) for n, unit, entry in _ROOTS),
        mean_over_images("log10", "", "lower", _log10),
        *(mean_over_images(n, "", "higher", partial(_mean, entry)) for n, entry in _SHARES),
        mean_over_images("silog", "x100", "lower", _silog),
    )
}

# Pooled over all pixels of the set; a root is taken once, at the end (multi-task benchmarks: InvPT, MTI-Net).
DEPTH_POOLED: dict[str, Metric] = {
    m.name: m
    for m in (
        *(sum_over_pixels(n, unit, "lower", partial(_sum, entry)) for n, unit, entry in _MEANS),
        *(sum_over_pixels(n, unit, "lower", partial(_sum, entry), root_mean) for n, unit, entry in _ROOTS),
        sum_over_pixels("log10", "", "lower", _log10_sum),
        *(sum_over_pixels(n, "", "higher", partial(_sum, entry)) for n, entry in _SHARES),
    )
}

# Scores that publications give the same name as one of `DEPTH`, with another definition.
DEPTH_VARIANTS: dict[str, Metric] = {
    m.name: m
    for m in (
        # lambda = 0.5, not multiplied by 100: VPD, GLPDepth, Depth Anything V2.
        mean_over_images("silog_half", "", "lower", _silog_half),
        # Variance over n - 1, multiplied by 100: Diff-2-in-1. NaN for an image of one pixel.
        mean_over_images("silog_sample", "x100", "lower", _silog_sample),
    )
}
