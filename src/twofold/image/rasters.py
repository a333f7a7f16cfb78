"""Readers of maps in image files, in their stored type: PNG, JPEG, TIFF and OpenEXR."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from twofold.image.arrays import ReadOptions, check_array
from twofold.image.errors import ImageError, check_size, import_reader
from twofold.image.opening import open_image_file
from twofold.image.stored import Stored
from twofold.io import report_disk_full


def _open(stored: Stored, options: ReadOptions, format: str) -> Image.Image:
    """Open an image file as a map: one frame, within the size limit, without an EXIF rotation."""
    image = open_image_file(stored.read() if stored.member else stored.path, stored.name, (format,))
    check_size(stored.name, *image.size, options.max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{stored.name} holds several images; a map file has one")
    if format != "TIFF" and image.getexif().get(0x0112, 1) != 1:
        raise ImageError(f"{stored.name} has an EXIF rotation; maps are stored upright, write it again")
    return image


def read_png(stored: Stored, options: ReadOptions) -> np.ndarray:
    """Levels of 1 to 16 bits, or palette indices; ImageError if the codec has other bits."""
    with stored.open() as file:
        # Bytes 24 and 25 of every PNG: bits per sample, colour type. Pillow hides both.
        bits, color = file.read(26)[24:26]
    wanted = {"png8": 8, "png16": 16}.get(options.codec)
    with _open(stored, options, "PNG") as image:
        if wanted and (bits == 16) != (wanted == 16):
            raise ImageError(
                f"{stored.name} has {bits} bits per sample, its codec is {options.codec}; is it a preview image?"
            )
        _check_sums(stored)
        if bits == 16 and color in (2, 4, 6):
            return _read_png_wide(stored)
        image.load()
        array = np.asarray(image)
        # Pillow scales grey of 2 and 4 bits to 0..255: restore the stored levels.
        return array // (255 // (2**bits - 1)) if color == 0 and bits in (2, 4) else array


def _check_sums(stored: Stored) -> None:
    """ImageError unless the checksums of all PNG chunks are correct; Pillow does not verify them for pixel data."""
    data, place, kind = memoryview(stored.read()), 8, b""
    while kind != b"IEND":
        length = int.from_bytes(data[place : place + 4], "big")
        kind = bytes(data[place + 4 : place + 8])
        end = place + 8 + length
        if len(kind) < 4 or data[end : end + 4] != zlib.crc32(data[place + 4 : end]).to_bytes(4, "big"):
            raise ImageError(f"{stored.name} is damaged or cut short (a checksum is wrong); copy it again")
        place = end + 4


def _read_png_wide(stored: Stored) -> np.ndarray:
    """16-bit colour, which Pillow would reduce to 8 bits: h w c in the channel order of the file."""
    cv2: Any = import_reader("cv2", f"{stored.name}, a 16-bit colour PNG,")
    array = cv2.imdecode(np.frombuffer(stored.read(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ImageError(f"{stored.name} is damaged or cut short; copy or make it again")
    return array[..., [2, 1, 0, 3][: array.shape[2]]]


def read_jpeg(stored: Stored, options: ReadOptions) -> np.ndarray:
    """Levels of a map that was published as (lossy) JPEG; requires a codec."""
    with _open(stored, options, "JPEG") as image:
        if image.mode not in ("L", "RGB"):
            raise ImageError(f"{stored.name} is a JPEG of mode {image.mode}; a map is grey or RGB")
        image.load()
        return np.asarray(image)


def read_tiff(stored: Stored, options: ReadOptions) -> np.ndarray:
    """A single-page TIFF with samples of any type."""
    try:
        image = _open(stored, options, "TIFF")
    except ImageError as error:
        if "not an image" not in str(error):
            raise
        # Pillow reads no TIFF of several float channels.
        tifffile = import_reader("tifffile", f"{stored.name}, a TIFF of an uncommon kind,")
        with stored.open() as raw, tifffile.TiffFile(raw) as file:
            page = file.pages[0]
            check_array(stored.name, page.shape, page.dtype, options.max_pixels)
            return page.asarray()
    with image:
        image.load()
        return np.asarray(image)


def read_exr(stored: Stored, options: ReadOptions) -> np.ndarray:
    """RGB, XYZ, the only channel, or the channel `key`; the data window must cover the image."""
    exr = import_reader("OpenEXR", f"{stored.name}, an EXR file,")
    if not stored.member:
        return _exr_channels(exr, stored.path, stored.name, options)
    with tempfile.TemporaryDirectory() as folder:
        # OpenEXR reads named files only.
        copy = Path(folder) / "member.exr"
        data = stored.read()
        with report_disk_full(copy):
            copy.write_bytes(data)
        return np.array(_exr_channels(exr, copy, stored.name, options))


def _exr_channels(exr: Any, path: Path, name: str, options: ReadOptions) -> np.ndarray:
    header = exr.File(str(path), header_only=True).header()
    low, high = header["dataWindow"]
    if not all(
        np.array_equal(a, b) for a, b in zip(header["dataWindow"], header["displayWindow"], strict=True)
    ):
        raise ImageError(f"{name} has only a window of its image ({low} to {high}); write the whole image")
    check_size(name, int(high[0] - low[0] + 1), int(high[1] - low[1] + 1), options.max_pixels)
    channels = exr.File(str(path)).channels()
    if options.key:
        if options.key not in channels:
            raise ImageError(f"{name} has no channel {options.key!r}; it has {', '.join(channels)}")
        return channels[options.key].pixels
    for group in ("RGB", "RGBA"):
        if group in channels:
            return channels[group].pixels[..., :3]
    if len(channels) == 1:
        return next(iter(channels.values())).pixels
    if {"X", "Y", "Z"} <= set(channels):
        return np.stack([channels[c].pixels for c in "XYZ"], axis=-1)
    raise ImageError(
        f"{name} has the channels {', '.join(channels)}; select one with 'key', or store RGB or XYZ"
    )
