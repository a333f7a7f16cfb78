"""PNG writer that processes large images in bands of rows; Pillow's needs the whole image at up to 4 bytes per pixel.

PNG specification (third edition): sections 5 (chunks), 9 (filters 1, Sub, and 2, Up) and 11.2 (IHDR).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from twofold.image.bands import row_bands

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# IHDR's color types by channels.
_COLOR_TYPES = {1: 0, 3: 2}
# Smaller images are written by Pillow, whose adaptive filters make files of photographs a sixth smaller.
_PILLOW_PIXELS = 2**22
# zlib level: half the time of the default, files 5 % larger.
_LEVEL = 4


def write_png(
    path: Path,
    rows: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    text: Mapping[str, str] | None = None,
) -> None:
    """Write a grey or RGB image of ``size`` (height, width) to a PNG file with the bit depth of its dtype.

    Args:
        path: replaced if it exists, not atomically.
        rows: ``rows(start, stop)`` returns the image's rows: ``n w`` or ``n w 3``, uint8, or uint16 for grey.
        size: at least 1 x 1.
        text: ASCII entries by keyword, stored as tEXt chunks.
    """
    height, width = size
    if height * width > _PILLOW_PIXELS:
        _write_by_bands(path, rows, size, text or {})
        return
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    Image.fromarray(rows(0, height)).save(path, format="PNG", pnginfo=chunks)


def _write_by_bands(
    path: Path, rows: Callable[[int, int], np.ndarray], size: tuple[int, int], text: Mapping[str, str]
) -> None:
    height, width = size
    first = rows(0, 1)
    channels = 1 if first.ndim == 2 else first.shape[2]
    header = struct.pack(">IIBBBBB", width, height, 8 * first.itemsize, _COLOR_TYPES[channels], 0, 0, 0)
    with path.open("wb") as file:
        file.write(_SIGNATURE + _chunk(b"IHDR", header))
        for key, value in text.items():
            file.write(_chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1")))
        for data in _compressed(rows, size):
            file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IEND", b""))


def _compressed(rows: Callable[[int, int], np.ndarray], size: tuple[int, int]) -> Iterator[bytes]:
    """The zlib stream of all filtered rows, in parts."""
    packer = zlib.compressobj(_LEVEL)
    above: np.ndarray | None = None
    for top, bottom in row_bands(*size):
        levels = np.ascontiguousarray(rows(top, bottom))
        band = levels.astype(levels.dtype.newbyteorder(">")).view(np.uint8).reshape(bottom - top, -1)
        filtered = np.empty((len(band), band.shape[1] + 1), np.uint8)
        if levels.itemsize == 2:  # filter Sub: the low bytes of two rows are hardly correlated
            filtered[:, 0] = 1
            filtered[:, 1:3] = band[:, :2]
            np.subtract(band[:, 2:], band[:, :-2], out=filtered[:, 3:])
        else:
            filtered[:, 0] = 2
            np.subtract(band[0], 0 if above is None else above, out=filtered[0, 1:])
            np.subtract(band[1:], band[:-1], out=filtered[1:, 1:])
        above = band[-1]
        if data := packer.compress(filtered.data):
            yield data
    yield packer.flush()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
