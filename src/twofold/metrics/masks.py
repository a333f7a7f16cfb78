"""Scores of masks and mattes, numbers in [0, 1]: computed on one image, then averaged over images."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, mean_over_images

# Above it a pixel counts as foreground.
THRESHOLD = 0.5


def _iou(p: Tensor, d: Tensor) -> Tensor:
    """Intersection over union of the foregrounds; 1 where neither has any."""
    said, there = p > THRESHOLD, d > THRESHOLD
    union = (said | there).sum()
    return (said & there).sum() / union if union > 0 else torch.ones(())


MASKS: dict[str, Metric] = {
    "mae": mean_over_images("mae", "", "lower", lambda p, d: (p - d).abs().mean()),
    "mse": mean_over_images("mse", "", "lower", lambda p, d: (p - d).square().mean()),
    "iou": mean_over_images("iou", "", "higher", _iou),
}
