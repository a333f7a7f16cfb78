"""Scores of multi-task benchmarks (NYUD-MT, PASCAL-Context) as their programs have them, and what a task gains.

Two families of programs are in print, and their numbers differ: InvPT's and TaskPrompter's, which pool the pixels of
the set, and ASTMT's and MTI-Net's, which average some scores over images. Where a program has a mistake, the metric
without it has the plain name and the one with it says so; the mistake is never the default.
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

# Above it the (soft) truth of saliency is foreground.
FOREGROUND = 0.5
INVPT_THRESHOLDS = torch.arange(1, 20, dtype=torch.float64) / 20
ASTMT_THRESHOLDS = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)

# The median over images comes from a histogram of their values: off by half a bin at most.
BIN = 1e-4
BINS = 50_000


def multitask_gain(
    scores: Mapping[str, float], baselines: Mapping[str, float], lower: Collection[str]
) -> float:
    """Delta_m, in percent: the mean over tasks of the relative gain over single-task models (Maninis et al. 2019).

    Args:
        scores: by task.
        baselines: the same tasks, of models of one task with the same backbone.
        lower: tasks whose score is better when it is lower.

    Raises:
        ValueError: the tasks are not the same, there is none, or a baseline is 0 or negative.
    """
    if not scores or set(scores) != set(baselines) or not set(lower) <= set(scores):
        odd = set(scores) ^ set(baselines) | set(lower) - set(scores)
        raise ValueError(
            f"scores and baselines are not of the same tasks: {', '.join(sorted(odd)) or 'none'}"
        )
    if not all(baselines[k] > 0 for k in baselines):
        raise ValueError("a gain is relative to its baseline, and one of them is not positive")
    gains = [(-1 if k in lower else 1) * (scores[k] - baselines[k]) / baselines[k] for k in scores]
    return 100 * sum(gains) / len(gains)


def _counts(
    thresholds: Tensor, strict: bool, twice: bool, inputs: MetricInput
) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, positives predicted (one each a threshold) and positives actual are (1)."""
    p = inputs.p.flatten()
    if twice:
        # What is predicted to be a probability was one already, times 255 over 255.
        p = p.sigmoid()
    g = inputs.d.flatten() > FOREGROUND
    predicted, hit = p.sort().values, p[g].sort().values
    side = "right" if strict else "left"
    positives, true = (len(x) - torch.searchsorted(x, thresholds, side=side) for x in (predicted, hit))
    return true.double(), positives.double(), g.sum().double()[None]


def _pooled_part(twice: bool, inputs: MetricInput) -> Tensor:
    """[true positives, positives predicted, positives, skipped], summed over pixels and images."""
    return vector(*_counts(INVPT_THRESHOLDS, False, twice, inputs), float(inputs.count == 0))


def _pooled_max_f(total: Tensor) -> float:
    n = len(INVPT_THRESHOLDS)
    true, predicted, actual = total[:n], total[n : 2 * n], total[2 * n]
    if not bool(actual > 0):
        return float("nan")
    return float(f_score(true / predicted.clamp(min=1), true / actual, BETA2).max())


def _astmt_part(inputs: MetricInput) -> Tensor:
    """[precision and recall and Jaccard at each threshold, images, skipped]."""
    if not inputs.count:
        return vector(torch.zeros(3 * len(ASTMT_THRESHOLDS)), 0, 1)
    true, predicted, actual = _counts(ASTMT_THRESHOLDS, False, False, inputs)
    union = predicted + actual - true
    # Nothing where there is nothing is right.
    jaccard = torch.where(union > 0, true / union.clamp(min=1), 1.0)
    return vector(true / predicted.clamp(min=1), true / actual.clamp(min=1), jaccard, 1, 0)


def _astmt_max_f(total: Tensor) -> float:
    precision, recall, _ = (total[:-2] / total[-2]).chunk(3)
    return float(f_score(precision, recall, 1.0).max())


def _astmt_iou(total: Tensor) -> float:
    return float((total[:-2] / total[-2]).chunk(3)[2].max())


def _log_rmse_bin(inputs: MetricInput) -> Tensor:
    """A histogram of the image's one number, log-RMSE, by BIN, then whether it has none."""
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
    """`update` of an image whose unknown depths (0) count as 1e-9 m."""
    everywhere = torch.ones_like(inputs.valid)
    target = torch.where(inputs.valid & (inputs.target > 0), inputs.target.double(), 1e-9)
    return update(MetricInput(inputs.prediction, target, everywhere))


# InvPT, TaskPrompter: pixels of the set. saliency_max_f takes probabilities in [0, 1]; thresholds 0.05 to 0.95.
MULTITASK_POOLED: dict[str, Metric] = {
    "saliency_max_f": Metric("saliency_max_f", "", "higher", partial(_pooled_part, False), _pooled_max_f),
    # The programs apply a sigmoid to what is a probability already, so that only five thresholds are left, in effect.
    "saliency_max_f_twice": Metric(
        "saliency_max_f_twice", "", "higher", partial(_pooled_part, True), _pooled_max_f
    ),
    "depth_rmse": replace(DEPTH_POOLED["rmse"], name="depth_rmse"),
    "normals_mean": replace(NORMALS["mean"], name="normals_mean"),
}

# ASTMT, MTI-Net: F with beta = 1 of the images' mean precision and recall; thresholds 0.2 to 0.9.
MULTITASK_BY_IMAGE: dict[str, Metric] = {
    "saliency_max_f": Metric("saliency_max_f", "", "higher", _astmt_part, _astmt_max_f),
    "saliency_iou": Metric("saliency_iou", "", "higher", _astmt_part, _astmt_iou),
    "depth_rmse": replace(DEPTH["rmse"], name="depth_rmse"),
    # The median over images, not the mean.
    "depth_rmse_log": Metric("depth_rmse_log", "", "lower", _log_rmse_bin, _median_of_bins),
    # Their mask leaves nothing out: unknown depth counts, as if it were 0.
    "depth_rmse_unmasked": Metric(
        "depth_rmse_unmasked", "m", "lower", partial(_unmasked, DEPTH["rmse"].update), mean
    ),
    "normals_mean": replace(NORMALS["mean"], name="normals_mean"),
}
