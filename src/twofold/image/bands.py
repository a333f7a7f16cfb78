"""Large images a band of rows at a time: the same values, with temporary copies of a band instead of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Of one band; smaller images are one band.
_BAND_PIXELS = 2**18


def row_bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """The first row of each band, and the row after its last."""
    rows = max(1, _BAND_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield top, min(height, top + rows)


def by_rows(function: Callable[..., Tensor], *tensors: Tensor | None, out: Tensor | None = None) -> Tensor:
    """`function` of tensors ``*b c h w`` of one height and width, where it treats each row by itself.

    Args:
        function: takes as many tensors (or None) as are given, of some of the rows; gives ``*b C`` of these rows, of
            any width.
        tensors: the first is no None.
        out: where the result is written, ``*b C h w``; it may be the first tensor. Made when not given.
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
