"""Pictures for eyes: any common file to sRGB in [0, 1], and back to PNG.

Decisions, made once:

- the size is read from the header and checked before a pixel is decoded;
- the rotation that a camera writes into EXIF is applied; colour profiles are not;
- transparent parts are laid over white, as on paper;
- 16-bit grey keeps its 16 bits, 16-bit colour is read at 8 (maps keep all: `read_map`);
- an animation is refused, because no frame of it is *the* picture; of a phone's several pictures in one
  file (MPO) the first is the photograph.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.image.files import atomic_write

MAX_PIXELS = 50_000_000

# Only these decoders run; others of Pillow's start programs (EPS) or are rarely used. JPEG includes MPO.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")

# What Pillow's decoders raise on damaged files; the types differ from format to format.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file that cannot be read as asked. One line: which file, what is wrong, and the way out."""


def read_image(source: str | os.PathLike[str] | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A picture from a path, the bytes of a file, or a PIL image: float32 3 h w, sRGB in [0, 1].

    ImageError for anything that is not one picture of at most `max_pixels` pixels.
    """
    with warnings.catch_warnings():
        # Pillow warns where this file raises or knows better; a user should hear it once.
        warnings.simplefilter("ignore")
        if isinstance(source, Image.Image):
            return _decode(source, str(getattr(source, "filename", "") or "the image in memory"), max_pixels)
        name = f"the image of {len(source)} bytes" if isinstance(source, bytes) else shown(source)
        with open_picture(source, name, _FORMATS) as image:
            return _decode(image, name, max_pixels)


def open_picture(source: str | os.PathLike[str] | bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    """The header of a picture file, read by one of `formats`; its pixels are not decoded yet."""
    if isinstance(source, bytes):
        file, size = io.BytesIO(source), len(source)
    elif isinstance(source, str | os.PathLike):
        file, size = check_file(source), os.path.getsize(source)
    else:
        raise ImageError(f"{type(source).__name__} is not a picture; give a path, bytes, or a PIL image")
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name} is not a picture, or is damaged at its start; save it as PNG or JPEG"
        ) from None
    except DECODE_ERRORS as error:
        raise _damaged(name, error) from None


def shown(path: object) -> str:
    """A path as messages name it: on one line whatever characters it has."""
    return str(path) if str(path).isprintable() else repr(str(path))


def check_file(path: str | os.PathLike[str]) -> Path:
    """`path` if it is a file that may be read, else ImageError."""
    name = shown(path)
    try:
        found = Path(path)
        if found.is_file():
            if os.access(found, os.R_OK):
                return found
            raise ImageError(f"{name} may not be read; check its permissions")
        what = "is a folder" if found.is_dir() else "is not a file" if found.exists() else "does not exist"
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}; check the path") from None
    except ValueError as error:
        raise ImageError(f"{name} is not a path: {error}; check it") from None
    raise ImageError(f"{name} {what}; give the path of one picture")


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """ImageError for a picture without pixels or with more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); check what wrote it")
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g} megapixels"
        raise ImageError(f"{name} is {width}x{height} pixels; the limit is {limit}; make it smaller first")


def _damaged(name: str, error: BaseException) -> ImageError:
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(f"{name} is damaged or cut short ({detail}); copy or download it again")


def _decode(image: Image.Image, name: str, max_pixels: int) -> Tensor:
    """An opened picture to float32 3 h w in [0, 1], upright."""
    check_size(name, *image.size, max_pixels)
    try:
        if image.format not in ("MPO", None) and getattr(image, "is_animated", False):
            raise ImageError(f"{name} holds several pictures ({image.format}); save the one you mean as PNG")
        image.load()
        turn = _TURNS.get(_orientation(image))
        return _to_rgb(image if turn is None else image.transpose(turn), name)
    except ImageError:
        raise
    except DECODE_ERRORS as error:
        raise _damaged(name, error) from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) when there is none or the EXIF block is damaged."""
    try:
        return image.getexif().get(0x0112, 1)
    except DECODE_ERRORS:
        return 1


def _to_rgb(image: Image.Image, name: str) -> Tensor:
    """Any mode of Pillow's to float32 3 h w in [0, 1]; transparency over white."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _wide_grey(np.asarray(image), name).expand(3, -1, -1).contiguous()
    if image.has_transparency_data:
        x = _channels_first(image.convert("RGBA"))
        color, alpha = x[:3], x[3:]
        return color * alpha + (1 - alpha)
    return _channels_first(image if image.mode == "RGB" else image.convert("RGB"))


def _channels_first(image: Image.Image) -> Tensor:
    # In numpy: a loader's picture is too small to be worth torch's threads.
    pixels = np.asarray(image).transpose(2, 0, 1)
    return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32, order="C"))


def _wide_grey(pixels: np.ndarray, name: str) -> Tensor:
    """Grey of 16 bits (0 to 65535) or of floats (0 to 1) as float32 1 h w in [0, 1]."""
    top = 1.0 if pixels.dtype.kind == "f" else 65535.0
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= top):
        raise ImageError(
            f"{name} holds numbers from {low:g} to {high:g}, not a picture; is this a map of measurements?"
        )
    return torch.from_numpy(np.asarray(pixels, dtype=np.float32) / np.float32(top))[None]


def write_image(path: str | os.PathLike[str], x: Tensor) -> None:
    """3 h w (or 1 h w, grey) in [0, 1] to an 8-bit PNG, whole or not at all. Values outside are clipped.

    ImageError when the suffix is not .png, the shape is another or a value is NaN.
    """
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{path} must end in .png, which loses nothing")
    if x.ndim != 3 or x.shape[0] not in (1, 3) or x.numel() == 0:
        raise ImageError(f"{path} cannot hold {tuple(x.shape)}; a picture is 3 h w, or 1 h w for grey")
    x = x.detach().float().cpu()
    if x.isnan().any():
        raise ImageError(f"{path} was not written: the picture holds NaN; mend what made it")
    levels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")
