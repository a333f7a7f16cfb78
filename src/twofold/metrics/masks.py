"""Metrics of masks and mattes with values in [0, 1]: computed on one image, then averaged over images.

Predictions are not normalized, so a mask of the values 0.4 and 0.6 has an error. The published metrics of dichotomous
and salient object segmentation are in `saliency`.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean_over_images
from twofold.metrics.saliency import saliency_metrics

# Above it a pixel counts as foreground.
THRESHOLD = 0.5


def _mae(x: MetricInput) -> Tensor:
    return (x.p - x.d).abs().mean()


def _mse(x: MetricInput) -> Tensor:
    return (x.p - x.d).square().mean()


def _iou(x: MetricInput) -> float:
    """Intersection over union of the foregrounds; 1 when both are empty."""
    predicted, actual = x.p > THRESHOLD, x.d > THRESHOLD
    union = int((predicted | actual).sum())
    return int((predicted & actual).sum()) / union if union > 0 else 1.0


MASKS: dict[str, Metric] = {
    "mae": mean_over_images("mae", "", "lower", _mae),
    "mse": mean_over_images("mse", "", "lower", _mse),
    "iou": mean_over_images("iou", "", "higher", _iou),
    # The maximum of the mean F curve of the images.
    "maxf": replace(saliency_metrics(minmax=False)["max_f"], name="maxf"),
}
