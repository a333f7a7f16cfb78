"""Pictures and maps squeezed into a square, as Diff-2-in-1's programs do: only to do as they did.

Nothing here keeps a picture's shape, and a picture that shrinks loses what lies between the pixels that are read:
`resize` and `resize_map` are what is used elsewhere. Numbers stay float64, as they are there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

EDGE = 512


def squeezed(x: Tensor, edge: int = EDGE) -> Tensor:
    """*b c h w to ``*b c edge edge``, between the four nearest pixels' centres, without antialiasing."""
    flat = x.reshape(-1, *x.shape[-3:])
    flat = interpolate(flat, size=(edge, edge), mode="bilinear", align_corners=False)
    return flat.reshape(*x.shape[:-2], edge, edge)


def squeezed_map(x: Tensor, valid: Tensor, edge: int = EDGE) -> tuple[Tensor, Tensor]:
    """A target *b c h w and its mask (bool *b 1 h w): (map, mask), where all four pixels that are read are valid.

    So a pixel is lost all along the mask's border, and none that is kept has anything of the unknown in it. Unit
    vectors come out shorter and stay so.
    """
    return squeezed(x, edge), squeezed((~valid).to(torch.float64), edge) == 0


def official_canvas(rgb: Tensor) -> Tensor:
    """Bytes 3 h w to the picture that the network is shown: float64 ``3 512 512`` in [-1, 1]."""
    return squeezed(rgb.double() / 255) * 2 - 1


def official_normals(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes 3 h w of a picture of normals, black where unknown, to vectors ``3 512 512`` (frame LUB) and their mask."""
    return squeezed_map(rgb.double() / 255 * 2 - 1, (rgb != 0).any(0, keepdim=True))
