"""Embedded ICC profiles: conversion of images to sRGB by Pillow's ImageCms (Little CMS).

Done once, when an image is read, with the profile's rendering intent. A profile that equals sRGB (to one level of 255)
changes nothing. A damaged profile, or one for another colour space (CMYK in an RGB file), is ignored: the image is read
as sRGB, with an ImageWarning. Maps are never converted.
"""

from __future__ import annotations

import io
import warnings
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from twofold.image.errors import ImageError, ImageWarning, decoding

# ICC colour space -> Pillow's mode.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# Profiles of printers have a few megabytes.
_MAX_BYTES = 2**24


def to_srgb(image: Image.Image, name: str) -> Image.Image:
    """A loaded image with its embedded profile applied; the same image when it has none, or its profile is sRGB.

    Returns mode RGB, RGBA, L, LA or one of 16-bit grey. Alpha is kept.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return image
    try:
        with decoding(name):
            return _converted(image, profile)
    except ImageError as error:
        reason = str(error).removeprefix(name).split("; ")[0]
        warnings.warn(
            ImageWarning(f"{name}: its colour profile cannot be used ({reason.strip()}); read as sRGB"),
            stacklevel=2,
        )
        return image


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    space = _space(profile)
    if image.mode.startswith("I") or image.mode == "F":
        # ImageCms supports 8-bit grey only; the smooth tone curve is interpolated between levels.
        return image if image.mode == "F" else _wide_grey(image, profile, space)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode not in ("LA", "La") else image.convert("LA")
        alpha = image.getchannel("A")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode == "L":
        converted = image.point(_grey_curve(profile, space).round().astype(np.uint8).tolist())
    else:
        converted = _colours(image, profile, space)
    if alpha is not None:
        converted = converted.convert("RGB")
        converted.putalpha(alpha)
    return converted


def _colours(image: Image.Image, profile: bytes, space: str) -> Image.Image:
    if image.mode != space:
        raise ValueError(f"it is for {space} images, this one is {image.mode}")
    transform = _transform(profile, space)
    converted = image if transform is None else ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def _space(profile: bytes) -> str:
    """The mode of images that a profile is for. ValueError, or ImageCms' own errors, when it is none."""
    if len(profile) > _MAX_BYTES:
        raise ValueError(f"it has {len(profile)} bytes")
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    if space not in _MODES:
        raise ValueError(f"it is for the colour space {space!r}")
    return _MODES[space]


@lru_cache(maxsize=16)  # the images of a folder have the profile of one camera
def _transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of RGB or CMYK to sRGB; None when it is the identity to one level."""
    transform = _built(profile, space, ImageCms.Flags.NONE)
    if space == "CMYK":
        return transform
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return None if np.abs(converted.astype(int) - grid).max() <= 1 else transform


def _built(profile: bytes, space: str, flags: ImageCms.Flags) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), space, "RGB", intent, flags)


@lru_cache(maxsize=16)
def _grey_curve(profile: bytes, space: str) -> np.ndarray:
    """The sRGB level (float64, 0 to 255) of each of 256 levels of grey, by a grey profile or RGB's neutral axis."""
    if space == "CMYK":
        raise ValueError("it is for CMYK images, this one is grey")
    levels = np.arange(256, dtype=np.uint8)
    # Without optimisation, which uses a coarse table for dark grey.
    transform = _built(profile, space, ImageCms.Flags.NOOPTIMIZE)
    ramp = ImageCms.applyTransform(Image.fromarray(levels[None]).convert(space), transform)
    curve = np.asarray(ramp).astype(np.float64)[0].mean(-1)
    return levels.astype(np.float64) if np.abs(curve - levels).max() <= 1 else curve


def _wide_grey(image: Image.Image, profile: bytes, space: str) -> Image.Image:
    """16-bit grey (0 to 65535) converted by `_grey_curve`, interpolated between its levels."""
    levels = np.asarray(image)
    curve = _grey_curve(profile, space)
    if not levels.size or levels.min() < 0 or levels.max() > 65535 or curve.tolist() == list(range(256)):
        return image
    table = np.interp(np.arange(65536) / 257, np.arange(256), curve) * 257
    return Image.fromarray(table.round().astype(np.uint16)[levels.astype(np.uint16)])
