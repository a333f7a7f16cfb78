"""Depth up to scale and shift, encoded as a grey image: near is -1, far is 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import visualization
from ..metrics import DEPTH, affine_aligned
from ..targets import TARGETS
from .ensemble import affine
from .image_tasks import distance
from .losses import MEAN_LOSSES
from .task import Task

LOW, HIGH = 0.02, 0.98  # quantiles that become 0 and 1 (GenPercept, Marigold)


def encode(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode metres: each image's 2 %-98 % quantiles of valid depth become [-1, 1], clipped (Marigold eq. 2).

    A depth of +inf (the sky) becomes 1: it is not valid, but known to be behind everything.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; the mask ``b 1 h w`` of known pixels.
    """
    encoded = torch.zeros_like(depth)
    far = torch.isposinf(depth) & ~valid
    for i in range(len(depth)):
        if not valid[i].any():
            continue
        known = depth[i][valid[i]]
        near, deep = torch.quantile(known[:: max(1, known.numel() // 65536)], known.new_tensor([LOW, HIGH]))
        scaled = (depth[i] - near) / (deep - near).clamp(min=1e-6) * 2 - 1
        encoded[i] = torch.where(valid[i] | far[i], scaled.clamp(-1, 1), 0)
    mask = (valid | far) & valid.flatten(1).any(1).reshape(-1, 1, 1, 1)
    return encoded.expand(-1, 3, -1, -1).contiguous(), mask


def decode(encoded: Tensor) -> Tensor:
    """Encoded depth ``b 3 h w`` to affine-invariant depth ``b 1 h w`` in [0, 1], 0 near."""
    return (encoded.float().mean(1, keepdim=True).clamp(-1, 1) + 1) / 2


def scale_shift_invariant(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 after the least-squares scale and shift of each image, with gradients (GenPercept sec. 2.2).

    An image whose fit is degenerate or has no positive scale is compared without scale and shift.
    """
    p, g, m = (v.mean(1).flatten(1) for v in (pred, target, mask.to(pred)))
    count = m.sum(1).clamp(min=1)
    mean_p, mean_g = (p * m).sum(1) / count, (g * m).sum(1) / count
    dp, dg = (p - mean_p[:, None]) * m, (g - mean_g[:, None]) * m
    variance = dp.square().sum(1)
    scale = (dp * dg).sum(1) / variance.clamp(min=1e-6)
    usable = (scale > 0) & (variance > 1e-6)
    scale = torch.where(usable, scale, torch.ones_like(scale))
    shift = torch.where(usable, mean_g - scale * mean_p, torch.zeros_like(scale))
    return ((scale[:, None] * p + shift[:, None] - g).abs() * m).sum() / m.sum().clamp(min=1)


def align(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Least-squares scale and shift onto the metric target of one image (``1 h w``), kept above 1 mm."""
    return affine_aligned(prediction, target, valid, (1e-3, math.inf))


depth = Task(
    name="depth",
    channels=1,
    unit="0 near to 1 far, up to scale and shift",
    space="depth",
    frame=None,
    prompt="depth map",
    encode=encode,
    decode=decode,
    losses={**MEAN_LOSSES, "ssi": scale_shift_invariant},
    weights={"mse": 1.0, "ssi": 0.5, "gradient": 2.0},
    flip=TARGETS["depth"].flip,
    distance=distance,
    merge=affine,
    show=visualization.color_depth,
    align=align,
    metrics=(DEPTH["abs_rel"], DEPTH["delta1"], DEPTH["rmse"]),
)
