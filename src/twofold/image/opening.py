"""Opening of image files by Pillow, which reads the header but decodes no pixels."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from twofold.image.errors import ImageError, check_file, decoding, import_reader
from twofold.image.formats import TGA_SUFFIXES

# Only these decoders are used; others of Pillow start programs (EPS) or are rarely needed. JPEG includes MPO.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
_BOMB_LOCK = threading.Lock()


def open_image_file(
    source: str | os.PathLike[str] | bytes, name: str, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Open an image file with one of `formats`, without decoding its pixels; the caller checks its size.

    TGA has no signature, so it is tried last, and only for files with its suffix.
    """
    file = _checked(source, name)
    if formats is FORMATS and isinstance(file, Path) and file.suffix.lower() in TGA_SUFFIXES:
        formats = (*FORMATS, "TGA")
    with decoding(name):
        try:
            return _open(file, formats)
        except Image.UnidentifiedImageError:
            raise ImageError(
                f"{name} is not an image, or is damaged at its start; save it as PNG or JPEG"
            ) from None


def open_heif(source: str | os.PathLike[str] | bytes, name: str) -> Image.Image:
    """Open a HEIC or HEIF file with pillow-heif (the extra `io`), like `open_image_file`.

    The image is upright, because the rotation is a part of the format.
    """
    pillow_heif: Any = import_reader("pillow_heif", f"{name}, a HEIF file,")
    file = _checked(source, name)
    with decoding(name):
        return pillow_heif.HeifImageFile(file)


def _checked(source: str | os.PathLike[str] | bytes, name: str) -> Path | io.BytesIO:
    """The path of an existing file that is not empty, or bytes as a file."""
    if isinstance(source, bytes):
        file, size = io.BytesIO(source), len(source)
    else:
        file = check_file(source)
        size = file.stat().st_size
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    return file


def _open(file: Any, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        # Pillow's limit is global to the process; the caller checks the size against the library's limit.
        if isinstance(file, io.BytesIO):
            file.seek(0)
        with _BOMB_LOCK:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(file, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = before
