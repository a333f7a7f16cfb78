"""Metrics of multi-task benchmarks (NYUD-MT, PASCAL-Context) as in published code, and the multi-task gain.

There are two families of code with different numbers: InvPT and TaskPrompter pool the pixels of the set; ASTMT and
MTI-Net average some scores over images. Where published code has an error, the corrected metric has the plain name and
the metric with the error a name of its own; it is never the default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from twofold.metrics.depth import DEPTH, DEPTH_POOLED
from twofold.metrics.metric import Metric, MetricInput, mean, vector
from twofold.metrics.normals import NORMALS
from twofold.metrics.saliency import BETA2, f_score

# The (soft) saliency target is foreground above this.
FOREGROUND = 0.5
INVPT_THRESHOLDS = torch.arange(1, 20, dtype=torch.float64) / 20
ASTMT_THRESHOLDS = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)

# The median over images is computed from a histogram of their values: the error is at most half a bin.
BIN = 1e-4
BINS = 50_000


def multitask_gain(
    scores: Mapping[str, float], baselines: Mapping[str, float], lower: Collection[str]
) -> float:
    """Delta_m, in percent: the mean over tasks of the relative gain over single-task models (Maninis et al. 2019).

    Args:
        scores: by task.
        baselines: scores of single-task models with the same backbone, by task.
        lower: tasks whose score is better when it is lower.

    Raises:
        ValueError: the tasks differ, there is none, or a baseline is not positive.
    """
    if not scores or set(scores) != set(baselines) or not set(lower) <= set(scores):
        odd = set(scores) ^ set(baselines) | set(lower) - set(scores)
        raise ValueError(
            f"scores and baselines are not of the same tasks: {', '.join(sorted(odd)) or 'none'}"
        )
    if not all(baselines[k] > 0 for k in baselines):
        raise ValueError("a baseline is not positive; the relative gain needs positive baselines")
    gains = [(-1 if k in lower else 1) * (scores[k] - baselines[k]) / baselines[k] for k in scores]
    return 100 * sum(gains) / len(gains)


def _counts(
    thresholds: Tensor, strict: bool, twice: bool, inputs: MetricInput
) -> tuple[Tensor, Tensor, Tensor]:
    """True positives and predicted positives (one per threshold), and actual positives (1).

    ``strict`` counts p > threshold instead of p >= threshold; ``twice`` applies a sigmoid to the probabilities.
    """
    p = inputs.p.flatten()
    if twice:
        p = p.sigmoid()
    g = inputs.d.flatten() > FOREGROUND
    predicted, hit = p.sort().values, p[g].sort().values
    side = "right" if strict else "left"
    positives, true = (len(x) - torch.searchsorted(x, thresholds, side=side) for x in (predicted, hit))
    return true.double(), positives.double(), g.sum().double()[None]


def _pooled_part(twice: bool, inputs: MetricInput) -> Tensor:
    """[true positives, predicted positives, actual positives, skipped], summed over pixels and images."""
    return vector(*_counts(INVPT_THRESHOLDS, False, twice, inputs), float(inputs.count == 0))


def _pooled_max_f(total: Tensor) -> float:
    n = len(INVPT_THRESHOLDS)
    true, predicted, actual = total[:n], total[n : 2 * n], total[2 * n]
    if not bool(actual > 0):
        return float("nan")
    return float(f_score(true / predicted.clamp(min=1), true / actual, BETA2).max())


def _astmt_part(inputs: MetricInput) -> Tensor:
    """[precision, recall and Jaccard index at each threshold, images, skipped]."""
    if not inputs.count:
        return vector(torch.zeros(3 * len(ASTMT_THRESHOLDS)), 0, 1)
    true, predicted, actual = _counts(ASTMT_THRESHOLDS, False, False, inputs)
    union = predicted + actual - true
    # The Jaccard index of two empty masks is 1.
    jaccard = torch.where(union > 0, true / union.clamp(min=1), 1.0)
    return vector(true / predicted.clamp(min=1), true / actual.clamp(min=1), jaccard, 1, 0)


def _astmt_max_f(total: Tensor) -> float:
    precision, recall, _ = (total[:-2] / total[-2]).chunk(3)
    return float(f_score(precision, recall, 1.0).max())


def _astmt_iou(total: Tensor) -> float:
    return float((total[:-2] / total[-2]).chunk(3)[2].max())


def _log_rmse_bin(inputs: MetricInput) -> Tensor:
    """One-hot histogram of the image's log-RMSE with bins of width BIN, then 1 when the image has no score."""
    total = torch.zeros(BINS + 1, dtype=torch.float64)
    sums = DEPTH["rmse_log"].update(inputs)
    if sums[-1]:
        total[-1] = 1
    else:
        total[min(int(sums[0] / BIN), BINS - 1)] = 1
    return total


def _median_of_bins(total: Tensor) -> float:
    below = total[:-1].cumsum(0)
    count = int(below[-1])
    if count == 0:
        return float("nan")
    ranks = torch.tensor([(count - 1) // 2, count // 2], dtype=torch.float64)
    return float(((torch.searchsorted(below, ranks, right=True) + 0.5) * BIN).mean())


def _unmasked(update: Callable[[MetricInput], Tensor], inputs: MetricInput) -> Tensor:
    """`update` of the image with all pixels valid and unknown depths replaced by 1e-9 m."""
    everywhere = torch.ones_like(inputs.valid)
    target = torch.where(inputs.valid & (inputs.target > 0), inputs.target.double(), 1e-9)
    return update(MetricInput(inputs.prediction, target, everywhere))


# InvPT, TaskPrompter: pooled over pixels. saliency_max_f takes probabilities in [0, 1]; thresholds 0.05 to 0.95.
MULTITASK_POOLED: dict[str, Metric] = {
    "saliency_max_f": Metric("saliency_max_f", "", "higher", partial(_pooled_part, False), _pooled_max_f),
    # The published code applies a second sigmoid to probabilities, which leaves five effective thresholds.
    "saliency_max_f_twice": Metric(
        "saliency_max_f_twice", "", "higher", partial(_pooled_part, True), _pooled_max_f
    ),
    "depth_rmse": replace(DEPTH_POOLED["rmse"], name="depth_rmse"),
    "normals_mean": replace(NORMALS["mean"], name="normals_mean"),
}

# ASTMT, MTI-Net: F (beta = 1) of the mean precision and recall over images; thresholds 0.2 to 0.9.
MULTITASK_BY_IMAGE: dict[str, Metric] = {
    "saliency_max_f": Metric("saliency_max_f", "", "higher", _astmt_part, _astmt_max_f),
    "saliency_iou": Metric("saliency_iou", "", "higher", _astmt_part, _astmt_iou),
    "depth_rmse": replace(DEPTH["rmse"], name="depth_rmse"),
    # The median over images, not the mean.
    "depth_rmse_log": Metric("depth_rmse_log", "", "lower", _log_rmse_bin, _median_of_bins),
    # The mask of the published code excludes no pixel: unknown depth counts as 0.
    "depth_rmse_unmasked": Metric(
        "depth_rmse_unmasked", "m", "lower", partial(_unmasked, DEPTH["rmse"].update), mean
    ),
    "normals_mean": replace(NORMALS["mean"], name="normals_mean"),
}
