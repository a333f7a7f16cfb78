"""RGB images: reading of common image files to sRGB in [0, 1], and writing of PNG.

- The size is read from the header and checked before pixels are decoded.
- EXIF rotation is applied.
- An embedded colour profile (ICC) is applied, so that values are sRGB: see `color`.
- Linear light in floats (EXR, HDR, float TIFF) is tone-mapped: see `linear` and `tone`.
- Transparent images are composited over white.
- 16-bit grey keeps its 16 bits; 16-bit colour is reduced to 8 bits (`read_map` keeps all).
- Animations are refused; of several images in one file of a phone (MPO, HEIF) the first is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.image.color import to_srgb
from twofold.image.errors import ImageError, check_file, check_size, decoding
from twofold.image.formats import HEAD_BYTES, sniff, sniff_file
from twofold.image.linear import read_linear
from twofold.image.opening import open_heif, open_image_file
from twofold.image.png import write_png
from twofold.io import atomic_write, escape
from twofold.io.limits import MAX_PIXELS, pixel_limit

__all__ = [
    "MAX_PIXELS",
    "ImageError",
    "check_file",
    "check_size",
    "read_image",
    "write_image",
]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    source: str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor, max_pixels: int | None = None
) -> Tensor:
    """Read an image from a path, the bytes of a file, or a PIL image: float32 3 h w, sRGB in [0, 1].

    Numpy arrays and tensors are converted as by `memory.as_image`.

    ImageError for anything that is not one image of at most `max_pixels` pixels (by default `pixel_limit()`).
    """
    return as_float(read_levels(source, max_pixels))


def read_levels(
    source: str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor, max_pixels: int | None = None
) -> Tensor:
    """`read_image` without conversion of 8-bit files: uint8 ``c h w`` with 3 channels, or 4 with alpha, else float32.

    `as_float` converts the result to that of `read_image`.
    """
    if isinstance(source, np.ndarray | Tensor):
        from twofold.image.memory import as_levels  # which reads files by this function

        return as_levels(source)
    limit = pixel_limit() if max_pixels is None else max_pixels
    if isinstance(source, Image.Image):
        return _decode(source, str(getattr(source, "filename", "") or "the image in memory"), limit)
    if not isinstance(source, bytes | str | os.PathLike):
        raise ImageError(
            f"{type(source).__name__} is not an image; pass a path, bytes, a PIL image, a numpy array h w 3, or a "
            "tensor 3 h w"
        )
    name = f"the image of {len(source)} bytes" if isinstance(source, bytes) else escape(source)
    kind = sniff(source[:HEAD_BYTES]) if isinstance(source, bytes) else sniff_file(check_file(source))
    if kind in ("exr", "hdr"):
        return read_linear(source, kind, limit)
    try:
        opened = open_heif(source, name) if kind == "heif" else open_image_file(source, name)
    except ImageError:
        if kind != "tiff":
            raise
        opened = None  # Pillow cannot read a TIFF with several float channels
    if opened is None:
        return read_linear(source, kind, limit)
    with opened as image:
        return _decode(image, name, limit)


def _decode(image: Image.Image, name: str, max_pixels: int) -> Tensor:
    """An opened image in the format of `read_levels`, upright, in sRGB."""
    check_size(name, *image.size, max_pixels)
    with decoding(name):
        # In files of phones (MPO, HEIF) the first image is the photograph.
        if image.format not in ("MPO", "HEIF", None) and getattr(image, "is_animated", False):
            raise ImageError(f"{name} holds several images ({image.format}); save the one you mean as PNG")
        image.load()
        turn = _TURNS.get(_orientation(image))
    image = to_srgb(image, name)
    with decoding(name):
        return _to_rgb(image if turn is None else image.transpose(turn), name)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) when there is none or the EXIF block is damaged."""
    try:
        with decoding("EXIF"):
            return image.getexif().get(0x0112, 1)
    except ImageError:
        return 1


def as_float(levels: Tensor) -> Tensor:
    """Levels ``c h w`` of `read_levels` as float32 ``3 h w`` in [0, 1], composited over white; floats unchanged."""
    if levels.dtype != torch.uint8:
        return levels
    # numpy, because torch's threads do not pay for small images.
    x = torch.from_numpy(np.divide(levels.numpy(), np.float32(255), dtype=np.float32, order="C"))
    if len(x) < 4:
        return x
    color, alpha = x[:3], x[3:]
    return color * alpha + (1 - alpha)


def _to_rgb(image: Image.Image, name: str) -> Tensor:
    """An image of any Pillow mode in the format of `read_levels`."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _wide_grey(np.asarray(image), name).expand(3, -1, -1).contiguous()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return torch.from_numpy(np.array(image if image.mode == mode else image.convert(mode))).permute(2, 0, 1)


def _wide_grey(pixels: np.ndarray, name: str) -> Tensor:
    """Grey of 16 bits (0 to 65535) or of floats (0 to 1) as float32 1 h w in [0, 1]."""
    top = 1.0 if pixels.dtype.kind == "f" else 65535.0
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= top):
        raise ImageError(
            f"{name} has values from {low:g} to {high:g}; an image has 0 to {top:g}. Is it a map of measurements?"
        )
    return torch.from_numpy(np.asarray(pixels, dtype=np.float32) / np.float32(top))[None]


def write_image(
    path: str | os.PathLike[str],
    x: Tensor,
    color: Callable[[Tensor], Tensor] | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write 3 h w (or 1 h w, grey) in [0, 1] to an 8-bit PNG, atomically. Values outside are clipped.

    With ``color``, a pixel-wise function, ``color(x)`` is written, computed in bands of rows. ``text`` entries are
    stored in the file, by key.

    ImageError when the suffix is not .png, the shape is another or a value is NaN.
    """
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{path} must end in .png, a lossless format")
    if x.ndim != 3 or x.numel() == 0 or (color is None and x.shape[0] not in (1, 3)):
        raise ImageError(f"{path} cannot hold {tuple(x.shape)}; an image is 3 h w, or 1 h w for grey")
    x = x.detach()

    def rows(top: int, bottom: int) -> np.ndarray:
        part = x[:, top:bottom] if color is None else color(x[:, top:bottom])
        part = part.float().cpu()
        if part.isnan().any():
            raise ImageError(f"{path} was not written: the image has NaN values; replace them")
        levels = (part.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return levels[..., 0] if levels.shape[2] == 1 else levels

    with atomic_write(path) as temporary:
        write_png(temporary, rows, (int(x.shape[1]), int(x.shape[2])), text)
