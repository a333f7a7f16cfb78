"""Which pixels are learned from: those of which a head is least sure, and some more at random (Bae et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def counts(pixels: int, share: float = 0.4, importance: float = 0.7) -> tuple[int, int, int]:
    """Of ``pixels``: how many are taken, how many of them because they are unsure, and how many at random."""
    taken = int(share * pixels)
    unsure = int(importance * taken)
    return taken, unsure, taken - unsure


@torch.no_grad()
def sample(
    kappa: Tensor,
    mask: Tensor,
    rngs: Sequence[torch.Generator],
    share: float = 0.4,
    importance: float = 0.7,
    anywhere: bool = False,
) -> Tensor:
    """Indices ``b n`` of pixels to learn from: first those of lowest ``kappa``, then others at random.

    What is not known is taken last of all, and what is taken is taken once.

    Args:
        kappa: ``b 1 h w``, how sure a head is.
        mask: ``b 1 h w`` bool, where the truth is known.
        rngs: one an image, so that what is drawn for it does not depend on its batch.
        share: of all pixels, that are taken.
        importance: of these, the part taken because they are unsure.
        anywhere: whether the others are drawn from all pixels that are left, known or not, as the released code does.
    """
    flat, known = kappa.flatten(1).float(), mask.flatten(1)
    taken, unsure, _ = counts(flat.shape[1], share, importance)
    worst = torch.where(known, -flat, -torch.inf).topk(unsure, 1).indices
    chance = torch.stack([torch.rand(flat.shape[1], generator=rng) for rng in rngs]).to(flat)
    chance = chance if anywhere else torch.where(known, chance, chance - 2)
    chance = chance.scatter(1, worst, -torch.inf)
    return torch.cat([worst, chance.topk(taken - unsure, 1).indices], 1)


def at(x: Tensor, indices: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """``b c h w`` at pixels ``b n`` of a raster of ``size`` over it, corner on corner: ``b c 1 n``."""
    h, w = size
    kind = torch.promote_types(x.dtype, torch.float32)  # places in half precision would be whole pixels off
    down, right = (indices // w).to(kind), (indices % w).to(kind)
    places = torch.stack([right / max(1, w - 1), down / max(1, h - 1)], -1)[:, None] * 2 - 1
    return F.grid_sample(x.to(kind), places, mode=mode, align_corners=True).to(x.dtype)
