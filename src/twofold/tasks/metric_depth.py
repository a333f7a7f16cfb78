"""Depth in metres up to a limit that is the same for every image, as in DMP: 0 m is -1, 8 m is 1."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .depth import depth
from .ensemble import median
from .task import Task


def encode(metres: Tensor, valid: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Encode metres: 2 d / limit - 1, clipped at 1.

    DMP's release does not clip, so its targets exceed 1 beyond 8 m.

    Args:
        metres: ``b 1 h w``; +inf for the sky.
        valid: ``b 1 h w`` bool.
        limit: metres that become 1.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; the mask ``b 1 h w``, which includes the sky.
    """
    mask = valid | torch.isposinf(metres)
    encoded = torch.where(mask, (metres * 2 / limit - 1).clamp(-1, 1), 0)
    return encoded.expand(-1, 3, -1, -1).contiguous(), mask


def align(prediction: Tensor, target: Tensor, valid: Tensor, limit: float) -> Tensor:
    """A map in metres, at least 1 mm; no scale or shift is fitted."""
    return (prediction * limit).clamp(min=1e-3)


def metric_depth_task(limit: float) -> Task:
    """The task of depth as a fraction of ``limit`` metres: maps are 0 at the camera and 1 at the limit."""
    return replace(
        depth,
        unit=f"depth in {limit:g} metres: 0 at the camera, 1 at {limit:g} m",
        encode=partial(encode, limit=limit),
        metres=limit,
        merge=median,  # scale and shift are known: members need no alignment
        align=partial(align, limit=limit),
    )


depth_8m = metric_depth_task(8.0)
depth_10m = metric_depth_task(10.0)
