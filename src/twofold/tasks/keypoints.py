"""Joints of one person as heatmaps, a channel each: the 17 joints of COCO (Lin et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import KEYPOINTS
from ..targets import TARGETS
from ..targets.people import JOINTS
from .ensemble import median
from .image_tasks import distance, unaligned
from .losses import masked_mean
from .palette import palette
from .task import Task


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps ``b k h w`` unchanged: 0 where invalid, -1 where not labelled; the mask is ``valid``."""
    return torch.where(valid, target, 0.0), valid


def decode(encoded: Tensor) -> Tensor:
    """Encoded heatmaps ``b k h w`` to heatmaps in [0, 1]; `metrics.peaks` locates the joints."""
    return encoded.float().clamp(0, 1)


def heatmap_mse(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the valid pixels of labelled joints (Xiao et al. 2018, weighted by visibility)."""
    return masked_mean((pred - target).square(), mask & (target >= 0))


def show(heatmaps: Tensor) -> Tensor:
    """Heatmaps ``*b k h w`` as a preview image ``*b 3 h w`` in [0, 1], each joint in its own colour, on black."""
    colors = palette(heatmaps.shape[-3] + 1)[1:].to(heatmaps)
    return (heatmaps.clamp(0, 1).unsqueeze(-3) * colors[..., None, None]).amax(-4)


keypoints = Task(
    name="keypoints",
    channels=len(JOINTS),
    unit="heatmap of each joint of COCO, 0 to 1",
    space="keypoints",
    frame=None,
    prompt="keypoints",
    encode=encode,
    decode=decode,
    losses={"mse": heatmap_mse},
    weights={"mse": 1.0},
    flip=TARGETS["keypoints"].flip,
    distance=distance,
    merge=median,
    show=show,
    align=unaligned,
    metrics=tuple(KEYPOINTS.values()),
    is_image=False,
)
