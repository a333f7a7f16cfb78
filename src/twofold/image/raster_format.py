"""Storage format of a raster file or array: bits per sample, palette, alpha. `read_map` returns the levels only."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from twofold.image.errors import ImageError, decoding
from twofold.image.stored import Stored, find_stored

_RASTERS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
# TIFF tags: bits per sample, photometric interpretation, kind of the extra samples.
_BITS, _EXTRA = 258, 338


@dataclass(frozen=True)
class RasterFormat:
    """The storage of one map.

    Attributes:
        bits: bits of a stored sample, 1 to 64; 0 for floats.
        raster: whether it is an image file (PNG, TIFF, JPEG), whose full scale is ``2**bits - 1``.
        alpha: whether the last channel is opacity.
        palette: ``n 4`` uint8, the RGBA colour of each index; None if levels are stored.
        transparent: the level or colour that a PNG declares transparent; empty for none.
        lossy: whether levels are approximate (JPEG).
    """

    bits: int = 0
    raster: bool = False
    alpha: bool = False
    palette: np.ndarray | None = None
    transparent: tuple[int, ...] = ()
    lossy: bool = False


def array_format(dtype: np.dtype) -> RasterFormat:
    """The format of an array in memory: 1 bit for bool, 0 for floats."""
    bits = {"b": 1, "f": 0}.get(dtype.kind, 8 * dtype.itemsize)
    return RasterFormat(bits)


def raster_format(path: str | os.PathLike[str], array: np.ndarray, codec: str = "") -> RasterFormat:
    """The format of a file that `read_stored` read as ``array``, from its header."""
    stored = find_stored(path)
    if codec == "jpg8":
        return RasterFormat(8, raster=True, lossy=True)
    format = "PNG" if codec.startswith("png") else "TIFF" if codec == "tiff" else _RASTERS.get(stored.suffix)
    if format is None or codec not in ("", "png", "png8", "png16", "tiff"):
        return array_format(array.dtype)
    try:
        with decoding(stored.name), stored.open() as file, Image.open(file, formats=(format,)) as image:
            return _png(stored, image) if format == "PNG" else _tiff(image, array)
    except ImageError:
        return RasterFormat(array_format(array.dtype).bits, raster=True)  # a TIFF that Pillow cannot read


def _png(stored: Stored, image: Image.Image) -> RasterFormat:
    with stored.open() as file:
        # Bytes 24 and 25 of every PNG: bits per sample, colour type.
        bits, color = file.read(26)[24:26]
    transparent = image.info.get("transparency", ())
    if color == 3:
        return RasterFormat(bits, raster=True, palette=_palette(image))
    key = (transparent,) if isinstance(transparent, int) else tuple(transparent)
    return RasterFormat(bits, raster=True, alpha=color in (4, 6), transparent=key)


def _tiff(image: Image.Image, array: np.ndarray) -> RasterFormat:
    tags = getattr(image, "tag_v2", {})
    found = tags.get(_BITS, 1)
    bits = int(found[0] if isinstance(found, tuple) else found)
    whole = array.dtype.kind != "f"
    palette = _palette(image) if image.mode == "P" else None
    alpha = array.ndim == 3 and (image.mode in ("LA", "RGBA", "PA") or bool(tags.get(_EXTRA)))
    return RasterFormat(bits if whole else 0, raster=True, alpha=alpha, palette=palette)


def _palette(image: Image.Image) -> np.ndarray:
    """The colours of a palette with their opacity: ``n 4`` uint8."""
    colors = np.asarray(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4).copy()
    opacity = image.info.get("transparency")
    if isinstance(opacity, bytes):
        colors[: len(opacity), 3] = np.frombuffer(opacity, dtype=np.uint8)[: len(colors)]
    elif isinstance(opacity, int) and opacity < len(colors):
        colors[opacity, 3] = 0
    return colors
