"""Joints of one person as heatmaps, a channel each: the 17 of COCO (Lin et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ensemble import median
from ..metrics import KEYPOINTS
from .losses import masked_mean
from .palette import palette
from .pictures import distance, unaligned
from .task import Task

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# Of each joint, the one it becomes in a mirror.
MIRRORED = (0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17)))
# ViTPose's 2 cells of 4 pixels.
SIGMA = 8.0


def heatmaps(points: Tensor, labelled: Tensor, size: tuple[int, int], sigma: float = SIGMA) -> Tensor:
    """Joints as Gaussians of height 1, without rounding to pixels (`metrics.peaks` finds them again).

    Args:
        points: ``*b k 2``, x and y in pixels from the left and upper edge.
        labelled: ``*b k`` bool, which of them are known; COCO's visibility above 0.
        size: height and width of the image.
        sigma: standard deviation in pixels.

    Returns:
        ``*b k h w`` in [0, 1], and -1 all over where a joint is not labelled: it is neither learned nor scored.
    """
    y, x = (torch.arange(n, device=points.device) + 0.5 for n in size)
    across = (-(x - points[..., :1]).square() / (2 * sigma**2)).exp()
    down = (-(y - points[..., 1:]).square() / (2 * sigma**2)).exp()
    return torch.where(labelled[..., None, None], down[..., :, None] * across[..., None, :], -1.0)


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps ``b k h w`` are their own canvas, 0 where unknown and -1 where not labelled; the mask is ``valid``."""
    return torch.where(valid, target, 0.0), valid


def decode(canvas: Tensor) -> Tensor:
    """Canvas ``b k h w`` to heatmaps in [0, 1]; `metrics.peaks` says where the joints are."""
    return canvas.float().clamp(0, 1)


def heatmap_mse(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the known pixels of labelled joints (Xiao et al. 2018, weighed by visibility)."""
    return masked_mean((said - wanted).square(), mask & (wanted >= 0))


def flip(x: Tensor) -> Tensor:
    """The mirror image ``*b 17 h w``: columns reversed, and left joints are right ones."""
    return x.flip(-1).index_select(-3, torch.tensor(MIRRORED, device=x.device))


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
    flip=flip,
    distance=distance,
    merge=median,
    show=show,
    align=unaligned,
    metrics=tuple(KEYPOINTS.values()),
    painted=False,
)
