"""Images and maps resized to a square without keeping their aspect ratio, only to reproduce Diff-2-in-1's programs.

Everything else uses `resize` and `resize_map`: here, downscaling is not antialiased. Values stay float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

EDGE = 512


def resized_to_square(x: Tensor, edge: int = EDGE) -> Tensor:
    """*b c h w to ``*b c edge edge``, between the four nearest pixels' centres, without antialiasing."""
    flat = x.reshape(-1, *x.shape[-3:])
    flat = interpolate(flat, size=(edge, edge), mode="bilinear", align_corners=False)
    return flat.reshape(*x.shape[:-2], edge, edge)


def map_resized_to_square(x: Tensor, valid: Tensor, edge: int = EDGE) -> tuple[Tensor, Tensor]:
    """A target *b c h w and its mask (bool *b 1 h w): (map, mask).

    A pixel is valid where all four pixels that it is interpolated from are, so the mask loses a pixel along its border.
    Unit vectors are not normalised again.
    """
    return resized_to_square(x, edge), resized_to_square((~valid).to(torch.float64), edge) == 0
