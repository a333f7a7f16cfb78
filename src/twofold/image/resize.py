"""Resizing of images, maps with validity masks and predictions, and padding."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from twofold.image.bands import by_rows
from twofold.image.rgb import as_float

# Methods to resize a predicted map to the size of its image.
OutputResize = Literal["bilinear", "antialias", "nearest", "bicubic"]


def resized_output(x: Tensor, size: tuple[int, int], how: OutputResize) -> Tensor:
    """Resize a predicted map b c h w to `size` (height, width) by one of the methods of published codes.

    bilinear   between pixel centres (diffusers' Marigold)
    antialias  bilinear, with antialiasing where it shrinks (GenPercept, E2E-FT)
    nearest    the pixel with the nearest centre (Lotus)
    bicubic    Keys' kernel with a = -0.75, without antialiasing; it may exceed the map's range (DMP)
    """
    options: dict[str, Any] = {"mode": "nearest-exact"}
    if how != "nearest":
        mode = "bicubic" if how == "bicubic" else "bilinear"
        options = {"mode": mode, "align_corners": False, "antialias": how == "antialias"}
    # Channel by channel: with several, torch copies to another layout, and rounding depends on the number of threads.
    out = x.new_empty(*x.shape[:2], *size)
    for channel in range(x.shape[1]):
        out[:, channel : channel + 1] = interpolate(x[:, channel : channel + 1], size, **options)
    return out


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize *b c h w to `size` (height, width): bilinear, antialiased when downscaling; float32."""
    _check(x, size)
    x = x.float()
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    flat = x.reshape(-1, *x.shape[-3:])
    flat = interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
    return flat.reshape(*x.shape[:-2], *size)


def resize_levels(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """Levels ``c h w`` of `rgb.read_levels` to float32 ``3 h w`` of `size`: `resize` of `rgb.as_float` of them.

    Rows are resized before columns, as `interpolate` does, so that only a band of rows is held as floats.
    """
    if tuple(levels.shape[-2:]) == tuple(size):
        return as_float(levels)
    narrow = by_rows(lambda part: resize(as_float(part), (part.shape[-2], size[1])), levels)
    return resize(narrow, size)


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize *b c h w to `size` (height, width) by the nearest pixel centre; float32."""
    flat = interpolate(x.float().reshape(-1, *x.shape[-3:]), size=size, mode="nearest-exact")
    return flat.reshape(*x.shape[:-2], *size)


def resize_map(
    x: Tensor, valid: Tensor, size: tuple[int, int], nearest: bool = False
) -> tuple[Tensor, Tensor]:
    """Resize a target *b c h w and its mask (bool *b 1 h w) to `size` (height, width): (float32 map, bool mask).

    Invalid pixels are excluded from interpolation (normalized convolution); the mask is resized by the nearest pixel.
    Invalid pixels of the result are 0, or +inf where the nearest pixel is (the sky of a depth). Pass `nearest=True` for
    ids and masks. Interpolated unit vectors are shorter than 1: see `geometry.unit`.
    """
    _check(x, size)
    keep = resize_nearest(valid, size) > 0.5
    if nearest:
        value = resize_nearest(torch.where(valid, x, 0), size)
    else:
        weight = resize(valid, size)
        value = resize(torch.where(valid, x, 0), size) / weight.clamp(min=1e-6)
        keep = keep & (weight > 1e-3)
    far = resize_nearest(x == math.inf, size) > 0.5
    return torch.where(keep, value, torch.where(far, math.inf, 0.0)), keep


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad *b c h w on the right and at the bottom by edge replication to multiples of `multiple`.

    Also returns the original (height, width): crop with `padded[..., :h, :w]`.
    """
    height, width = x.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    if right == bottom == 0:
        return x, (height, width)
    flat = pad(x.reshape(-1, *x.shape[-3:]), (0, right, 0, bottom), mode="replicate")
    return flat.reshape(*x.shape[:-2], *flat.shape[-2:]), (height, width)


def longest_edge_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) with the same aspect ratio whose longer edge is `longest`; no edge is below 1."""
    if min(height, width, longest) < 1:
        raise ValueError(f"sizes are at least 1 pixel, not {height}x{width} to {longest}")
    # Rounded down as in the published codes: another size gives another latent.
    edge = max(height, width)
    return max(1, height * longest // edge), max(1, width * longest // edge)


def _check(x: Tensor, size: tuple[int, int]) -> None:
    if x.ndim < 3 or min(x.shape[-2:]) < 1 or min(size) < 1:
        raise ValueError(
            f"cannot resize {tuple(x.shape)} to {tuple(size)}; a map is *b c h w, a size (height, width)"
        )
