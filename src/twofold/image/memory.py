"""Images in memory: conversion of tensors, numpy arrays and PIL images to the library's format.

Only unambiguous inputs are converted: 8-bit integers are divided by 255, grey is repeated to three channels, and
transparency is composited over white as for files. Floats must be in [0, 1]; other ranges (0 to 255, [-1, 1], mean and
deviation) raise an error that names the conversion.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL.Image import Image as PILImage
from torch import Tensor

from twofold.image.rgb import ImageError, as_float, read_levels

# Accepted types of one image.
ImageInput = str | os.PathLike[str] | bytes | PILImage | Tensor | np.ndarray

# Rounding of a resize or of half precision; values this far outside [0, 1] are clamped.
TOLERANCE = 1e-3
_CHANNELS = (1, 3, 4)


def as_image(source: ImageInput) -> Tensor:
    """One image as float32 ``3 h w``, sRGB in [0, 1], on the CPU.

    Args:
        source: a path, the bytes of an image file, a PIL image, a tensor ``c h w``, or a numpy array ``h w`` or
            ``h w c``, with 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels. Tensors and arrays are uint8 in 0 to 255,
            or floats in [0, 1].

    Raises:
        ImageError: it is not such an image; the message states what was found and how to convert it.
    """
    return as_float(as_levels(source))


def as_levels(source: ImageInput) -> Tensor:
    """As `as_image`, where 8 bits stay uint8 ``c h w`` with 3 channels, or 4 with alpha; see `rgb.as_float`."""
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    return read_levels(source)


def as_images(source: ImageInput | Sequence[ImageInput]) -> list[Tensor]:
    """`as_image` of several images; a tensor ``b c h w`` or an array ``b h w c`` is a list of images."""
    return [as_float(one) for one in as_levels_list(source)]


def as_levels_list(source: ImageInput | Sequence[ImageInput]) -> list[Tensor]:
    """`as_levels` of several images."""
    if (isinstance(source, Tensor | np.ndarray) and source.ndim == 4) or isinstance(source, list | tuple):
        return [as_levels(one) for one in source]
    return [as_levels(source)]  # ty: ignore[invalid-argument-type]


def check_range(x: Tensor, name: str = "the image tensor") -> None:
    """Check that floats are in [0, 1], up to `TOLERANCE`.

    Raises:
        ImageError: NaN, infinity, or another range; the message states the range and what to do.
    """
    if not bool(x.isfinite().all()):
        count = int((~x.isfinite()).sum())
        raise ImageError(
            f"{name} has {count} NaN or infinite values; an image is finite, in [0, 1]. Replace them before predicting"
        )
    low, high = float(x.min()), float(x.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ImageError(f"{name} has values from {low:.4g} to {high:.4g}; {_remedy(low, high)}")


def _from_tensor(image: Tensor) -> Tensor:
    shape = tuple(image.shape)
    if image.ndim != 3 or shape[0] not in _CHANNELS:
        hint = "pass one c h w tensor for each image"
        if image.ndim == 3 and shape[-1] in _CHANNELS:
            hint = "it looks like h w c; use image.permute(2, 0, 1)"
        elif image.ndim == 2:
            hint = "for a grey image use image[None]"
        elif image.ndim == 4:
            hint = "for several images pass it alone, not inside a list"
        raise ImageError(f"an image tensor is c h w with c = 1, 3 or 4, not {shape}; {hint}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ImageError(
            _wrong_type("tensor", str(image.dtype).removeprefix("torch."), "image.to(torch.uint8)")
        )
    return _to_rgb(image.detach().cpu(), "the image tensor")


def _from_array(image: np.ndarray) -> Tensor:
    shape = image.shape
    if image.ndim != 2 and (image.ndim != 3 or shape[-1] not in _CHANNELS):
        hint = "pass one h w c array for each image"
        if image.ndim == 3 and shape[0] in _CHANNELS:
            hint = "it looks like c h w; use image.transpose(1, 2, 0), or torch.from_numpy(image)"
        elif image.ndim == 4:
            hint = "for several images pass it alone, not inside a list"
        raise ImageError(f"an image array is h w, or h w c with c = 1, 3 or 4, not {shape}; {hint}")
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise ImageError(_wrong_type("array", str(image.dtype), "image.astype(np.uint8)"))
    channels_last = image[..., None] if image.ndim == 2 else image
    kind = np.uint8 if image.dtype == np.uint8 else np.float64 if image.dtype.itemsize > 4 else np.float32
    # A copy: torch supports neither negative strides nor other byte orders, and must not share the caller's memory.
    copied = np.array(channels_last.transpose(2, 0, 1), dtype=kind, order="C")
    return _to_rgb(torch.from_numpy(copied), "the image array")


def _to_rgb(image: Tensor, name: str) -> Tensor:
    """uint8 ``c h w`` with 3 or 4 channels, float to float32 ``3 h w`` in [0, 1]."""
    if min(image.shape) < 1:
        raise ImageError(f"{name} is empty ({tuple(image.shape)}); an image has at least one pixel")
    if image.dtype == torch.uint8:
        return image.expand(3, -1, -1) if len(image) == 1 else image
    check_range(image, name)
    image = image.float()
    if float(image.min()) < 0 or float(image.max()) > 1:  # a copy only where it changes something
        image = image.clamp(0, 1)
    if len(image) == 4:
        color, alpha = image[:3], image[3:]
        image = color * alpha + (1 - alpha)
    return image.expand(3, -1, -1).contiguous()


def _wrong_type(what: str, found: str, remedy: str) -> str:
    return (
        f"an image {what} is uint8 in 0 to 255 or float in [0, 1], not {found}; for 8-bit levels use {remedy}, for "
        "other levels divide by the largest one"
    )


def _remedy(low: float, high: float) -> str:
    """How to bring values of another convention into [0, 1]."""
    overshot, signed = "if a resize overshot, use image.clip(0, 1)", "use (image + 1) / 2"
    if low < -TOLERANCE and (low < -1 - TOLERANCE or high > 1.25):
        found = "they look normalised by a mean and a deviation; undo that with image * deviation + mean"
    elif low < -TOLERANCE:
        found = (
            f"they look like [-1, 1]; {signed}"
            if low < -0.25
            else f"{overshot}; if they are in [-1, 1], {signed}"
        )
    elif high <= 1.25:
        found = overshot
    elif high <= 255:
        found = "they look like levels of 8 bits; divide by 255, or pass uint8"
    else:
        found = (
            "they look like levels of 16 bits; divide by 65535"
            if high <= 65535
            else "divide by their maximum"
        )
    return f"an image is in [0, 1]: {found}"


def same_size(images: Iterable[Tensor]) -> Tensor:
    """Images ``3 h w`` of one size as a batch ``b 3 h w``.

    Raises:
        ImageError: there is none, or sizes differ.
    """
    images = list(images)
    sizes = sorted({tuple(image.shape[-2:]) for image in images})
    if len(sizes) != 1:
        found = ", ".join(f"{h}x{w}" for h, w in sizes) or "no image"
        raise ImageError(f"a batch needs images of one size (height x width), not {found}; resize them first")
    return torch.stack(images)
