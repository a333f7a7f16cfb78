"""Processing of large images in bands of rows: the same values, but temporary copies of a band only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Pixels of a band; smaller images are one band.
_BAND_PIXELS = 2**18


def row_bands(height: int, width: int) -> list[tuple[int, int]]:
    """The first row of each band, and the row after its last."""
    rows = max(1, _BAND_PIXELS // max(1, width))
    return [(top, min(height, top + rows)) for top in range(0, height, rows)]


def by_rows(function: Callable[..., Tensor], *tensors: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Apply a row-wise `function` to bands of rows of tensors ``*b c h w`` of one height and width.

    Args:
        function: takes a band of rows of each of ``tensors`` and returns ``*b C rows W``.
        tensors: tensors or None; the first is not None.
        out: tensor ``*b C h W`` that the result is written to; may be the first of ``tensors``. By default a new one.
    """
    first = tensors[0]
    assert first is not None
    height, width = first.shape[-2:]
    for top, bottom in row_bands(height, width):
        part = function(*(None if x is None else x[..., top:bottom, :] for x in tensors))
        if out is None:
            if bottom == height:
                return part
            out = torch.empty(*part.shape[:-2], height, part.shape[-1], dtype=part.dtype, device=part.device)
        out[..., top:bottom, :] = part
    assert out is not None
    return out
