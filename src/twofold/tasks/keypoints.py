"""Joints of one person as heatmaps, a channel each: the 17 of COCO (Lin et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ensemble import median
from ..metrics import KEYPOINTS
from ..targets import TARGETS
from ..targets.people import JOINTS
from .losses import masked_mean
from .palette import palette
from .pictures import distance, unaligned
from .task import Task


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps ``b k h w`` are their own canvas, 0 where unknown and -1 where not labelled; the mask is ``valid``."""
    return torch.where(valid, target, 0.0), valid


def decode(canvas: Tensor) -> Tensor:
    """Canvas ``b k h w`` to heatmaps in [0, 1]; `metrics.peaks` says where the joints are."""
    return canvas.float().clamp(0, 1)


def heatmap_mse(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the known pixels of labelled joints (Xiao et al. 2018, weighed by visibility)."""
    return masked_mean((said - wanted).square(), mask & (wanted >= 0))


def show(found: Tensor) -> Tensor:
    """Heatmaps ``*b k h w`` on black ``*b 3 h w`` in [0, 1]: each joint glows in its own colour."""
    colors = palette(found.shape[-3] + 1)[1:].to(found)
    glow = found.clamp(0, 1).unsqueeze(-3) * colors[..., None, None]
    return glow.amax(-4)


keypoints = Task(
    name="keypoints",
    channels=len(JOINTS),
    unit="likeness of each joint of COCO, 0 to 1",
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
    painted=False,
)
