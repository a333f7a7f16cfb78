"""Resizing to a square that ignores the aspect ratio, to reproduce Diff-2-in-1's code.

Downscaling is not antialiased; use `resize` and `resize_map` for other purposes. Values keep their dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

EDGE = 512


def resized_to_square(x: Tensor, edge: int = EDGE) -> Tensor:
    """Resize *b c h w to ``*b c edge edge``: bilinear without antialiasing."""
    flat = x.reshape(-1, *x.shape[-3:])
    flat = interpolate(flat, size=(edge, edge), mode="bilinear", align_corners=False)
    return flat.reshape(*x.shape[:-2], edge, edge)


def map_resized_to_square(x: Tensor, valid: Tensor, edge: int = EDGE) -> tuple[Tensor, Tensor]:
    """Resize a target *b c h w and its mask (bool *b 1 h w) to a square: (map, mask).

    A pixel is valid if all four pixels that it is interpolated from are. Unit vectors are not renormalized.
    """
    return resized_to_square(x, edge), resized_to_square((~valid).to(torch.float64), edge) == 0
