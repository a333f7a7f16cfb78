"""Sampling of the pixels that a loss uses: the most uncertain ones and some random ones (Bae et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def counts(pixels: int, share: float = 0.4, importance: float = 0.7) -> tuple[int, int, int]:
    """Numbers of sampled pixels out of ``pixels``: all, those chosen by uncertainty, those chosen at random."""
    total = int(share * pixels)
    uncertain = int(importance * total)
    return total, uncertain, total - uncertain


@torch.no_grad()
def sample(
    kappa: Tensor,
    mask: Tensor,
    rngs: Sequence[torch.Generator],
    share: float = 0.4,
    importance: float = 0.7,
    anywhere: bool = False,
) -> Tensor:
    """Indices ``b n`` of the sampled pixels: first those of lowest ``kappa``, then random ones.

    No pixel is sampled twice, and invalid pixels only when no valid one is left.

    Args:
        kappa: ``b 1 h w``, the predicted concentration.
        mask: ``b 1 h w`` bool, where the target is valid.
        rngs: one per image, so that an image's sample does not depend on its batch.
        share: fraction of all pixels that are sampled.
        importance: fraction of these that are chosen by uncertainty.
        anywhere: draw random pixels from all remaining ones, valid or not, as the released code does.
    """
    flat, valid = kappa.flatten(1).float(), mask.flatten(1)
    _, uncertain, rest = counts(flat.shape[1], share, importance)
    lowest = torch.where(valid, -flat, -torch.inf).topk(uncertain, 1).indices
    order = torch.stack([torch.rand(flat.shape[1], generator=rng) for rng in rngs]).to(flat)
    order = order if anywhere else torch.where(valid, order, order - 2)
    order = order.scatter(1, lowest, -torch.inf)
    return torch.cat([lowest, order.topk(rest, 1).indices], 1)


def at(x: Tensor, indices: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """``b c h w`` sampled at pixel indices ``b n`` of a grid of ``size``, corners aligned: ``b c 1 n``."""
    h, w = size
    kind = torch.promote_types(
        x.dtype, torch.float32
    )  # coordinates in half precision would be off by whole pixels
    down, right = (indices // w).to(kind), (indices % w).to(kind)
    grid = torch.stack([right / max(1, w - 1), down / max(1, h - 1)], -1)[:, None] * 2 - 1
    return F.grid_sample(x.to(kind), grid, mode=mode, align_corners=True).to(x.dtype)
