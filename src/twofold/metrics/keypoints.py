"""Sub-pixel joint positions from heatmaps, and the percentage of correct keypoints (PCK)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean, vector

# Heatmap values are clamped to at least this before the logarithm.
_LEAST = 1e-6
# A joint is correct within this share of the image's longer edge.
NEAR = 0.05


def peaks(heatmaps: Tensor) -> Tensor:
    """Sub-pixel maximum of each heatmap from a quadratic fit to its logarithm (DARK, Zhang et al. 2020).

    The logarithm of a Gaussian is quadratic, so its centre is found exactly, whatever its width.

    Args:
        heatmaps: ``*b k h w``.

    Returns:
        ``*b k 3``: x and y in pixels from the left and upper edge (the first pixel's centre is at 0.5), and the value.
    """
    *lead, height, width = heatmaps.shape
    flat = heatmaps.float().reshape(-1, 1, height, width)
    value, at = flat.flatten(1).max(1)
    row, column = at // width, at % width
    logs = F.pad(flat.clamp(min=_LEAST).log(), (1, 1, 1, 1), mode="replicate")[:, 0]
    i = torch.arange(len(logs), device=logs.device)
    around = torch.stack(
        [torch.stack([logs[i, row + 1 + dy, column + 1 + dx] for dx in (-1, 0, 1)], 1) for dy in (-1, 0, 1)],
        1,
    )
    inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1) & (value > _LEAST)
    moved = torch.where(inside[:, None], _top(around), 0)
    place = torch.stack([column, row], 1) + 0.5 + moved
    return torch.cat([place, value[:, None]], 1).reshape(*lead, 3)


def _top(around: Tensor) -> Tensor:
    """Offset x, y (n 2), at most one pixel, from the middle of ``n 3 3`` to the maximum of the quadratic fit."""
    dx, dy = (around[:, 1, 2] - around[:, 1, 0]) / 2, (around[:, 2, 1] - around[:, 0, 1]) / 2
    xx = around[:, 1, 2] - 2 * around[:, 1, 1] + around[:, 1, 0]
    yy = around[:, 2, 1] - 2 * around[:, 1, 1] + around[:, 0, 1]
    xy = (around[:, 2, 2] - around[:, 2, 0] - around[:, 0, 2] + around[:, 0, 0]) / 4
    area = xx * yy - xy * xy
    curved = (area > 1e-8) & (xx < 0)
    area = torch.where(curved, area, 1)
    step = torch.stack([xy * dy - yy * dx, xy * dx - xx * dy], 1) / area[:, None]
    return torch.where(curved[:, None], step.clamp(-1, 1), 0)


def _count_found(inputs: MetricInput) -> Tensor:
    """[correct joints, labelled joints, 1 if none is labelled]; labelled joints have a heatmap value above 0."""
    predicted, true = inputs.filled(-1.0)
    labelled = true.amax((-2, -1)) > 0
    distance = (peaks(predicted) - peaks(true))[..., :2].norm(dim=-1)
    near = (distance <= NEAR * max(true.shape[-2:])) & labelled
    return vector(near.sum(), labelled.sum(), float(not bool(labelled.any())))


# The share of labelled joints that are correct within `NEAR` (after Yang & Ramanan 2013); one person per image.
KEYPOINTS: dict[str, Metric] = {"pck": Metric("pck", "", "higher", _count_found, mean)}
