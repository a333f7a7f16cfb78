"""GenPercept's encodings and losses with their quirks, to reproduce what was trained with them. No default is here.

Each differs from the task of the same name as its docstring says. `genpercept` makes a task that has them all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .depth import HIGH, LOW
from .disparity import encode_whole
from .losses import gradient_vertical
from .task import Task


def encode_depth(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """As `depth.encode`, but what is not valid is painted as well: by its number, so that a hole of 0 m is near.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], three equal channels, -1 for an image without a valid pixel; the mask is
        ``valid``.
    """
    canvas = torch.full_like(depth, -1)
    for i in range(len(depth)):
        if valid[i].any():
            known = depth[i][valid[i]].double()
            near, deep = _quantile(known, LOW), _quantile(known, HIGH)
            canvas[i] = ((depth[i] - near) / (deep - near).clamp(min=1e-6) * 2 - 1).clamp(-1, 1)
    return canvas.expand(-1, 3, -1, -1).contiguous(), valid


def encode_stretched(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masks, mattes and class colours: each image from its own smallest to its largest number becomes [-1, 1].

    All channels are stretched alike, so that a colour depends on the others of its picture. A constant image becomes
    -1: one that is foreground all over is taught as background.

    Args:
        target: ``b 1 h w`` or ``b 3 h w``, in any unit.
        valid: ``b 1 h w`` bool; not looked at.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1]; a mask ``b 1 h w`` that holds everywhere.
    """
    low, high = target.amin((1, 2, 3), keepdim=True), target.amax((1, 2, 3), keepdim=True)
    canvas = (target - low) / (high - low).clamp(min=1e-6) * 2 - 1
    return canvas.expand(-1, 3, -1, -1).contiguous(), torch.ones_like(valid)


def decode_normals(canvas: Tensor) -> Tensor:
    """Canvas ``b 3 h w`` to vectors that are clipped to [-1, 1] and not of unit length, so clipping turned some."""
    return canvas.float().clamp(-1, 1)


def genpercept(task: Task) -> Task:
    """``task`` with the quirks of GenPercept's release: its encoding or decoding, and its losses and their weights.

    Two are not here, because no task sees them: pictures resized by nearest neighbour in training, and normals
    that count as known where they were zeroed.

    Raises:
        ValueError: a task that GenPercept does not have.
    """
    if task.name == "normals":
        return replace(task, decode=decode_normals, weights={"angular": 1.0})
    if task.name in ("depth", "disparity"):
        encode = encode_depth if task.name == "depth" else encode_whole
        return replace(task, encode=encode, losses={**task.losses, "gradient": gradient_vertical})
    if task.name in ("mask", "matting", "segmentation"):
        return replace(task, encode=encode_stretched)
    raise ValueError(
        f"GenPercept has no task {task.name!r}, only depth, disparity, normals, mask, matting and segmentation"
    )


def _quantile(values: Tensor, share: float) -> Tensor:
    """The quantile of all values, between two neighbours linearly; torch's own takes 16 million at most."""
    ordered = values.sort().values
    place = share * (len(ordered) - 1)
    low, high = int(place), min(int(place) + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], place - low)
