"""Large images a band of rows at a time: the same numbers, with temporary copies of a band instead of the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Of one band; smaller images are one band.
_BAND_PIXELS = 2**20


def by_rows(function: Callable[..., Tensor], *tensors: Tensor | None, out: Tensor | None = None) -> Tensor:
    """`function` of tensors ``*b c h w`` of one height and width, where it treats each pixel by itself.

    Args:
        function: takes as many tensors (or None) as are given, of some of the rows; gives ``*b C`` of these rows.
        tensors: the first is no None.
        out: where the result is written, ``*b C h w``; it may be the first tensor. Made when not given.
    """
    first = tensors[0]
    assert first is not None
    height, width = first.shape[-2:]
    rows = max(1, _BAND_PIXELS // max(1, width))
    if height <= rows and out is None:
        return function(*tensors)
    for top in range(0, height, rows):
        part = function(*(None if x is None else x[..., top : top + rows, :] for x in tensors))
        if out is None:
            out = torch.empty(*part.shape[:-2], height, width, dtype=part.dtype, device=part.device)
        out[..., top : top + rows, :] = part
    assert out is not None
    return out
