"""Maps: raw numbers in files, exactly as stored. What they mean is said by `twofold.data.codecs`."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.image.arrays import Ask, check_array, need, read_hdf5, read_mat, read_npy, read_npz, read_raw
from twofold.image.files import atomic_write
from twofold.image.pictures import DECODE_ERRORS, MAX_PIXELS, ImageError, check_size, open_picture
from twofold.image.stored import Stored, find_stored

# float32 holds every whole number up to here.
_EXACT = 2**24


def read_map(
    path: str | os.PathLike[str],
    max_pixels: int = MAX_PIXELS,
    *,
    codec: str = "",
    key: str = "",
    index: int | None = None,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Raw values as stored: float32 c h w. See `read_stored` for the arguments and the errors."""
    return as_map(read_stored(path, max_pixels, codec=codec, key=key, index=index, shape=shape), path)


def read_stored(
    path: str | os.PathLike[str],
    max_pixels: int = MAX_PIXELS,
    *,
    codec: str = "",
    key: str = "",
    index: int | None = None,
    shape: Sequence[int] | None = None,
) -> np.ndarray:
    """The array of a map in the type it was stored with: h w, h w c or c h w, with at most 4 channels.

    path    a file, or a member of a tar: `x.tar::a/b.png`
    codec   one of READ_CODECS, by default what the suffix says. png8 and png16 must have that many bits
    key, index, shape  see `arrays.Ask`

    Palettes give their indices, grey of 1 to 16 bits its levels, colour its order in the file. The size is
    checked before decoding; pickles are never read. ImageError for any file that is not such a map.
    """
    stored = find_stored(path)
    kind = _kind(stored, codec)
    ask = Ask(codec, key, index, None if shape is None else tuple(shape), max_pixels)
    for what, kinds in _ONLY.items():
        if getattr(ask, what) not in ("", None) and kind not in kinds:
            raise ImageError(f"{stored.name}: '{what}' is for {', '.join(kinds)}, this is read as {kind}")
    if stored.size == 0:
        raise ImageError(f"{stored.name} is empty (0 bytes); copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _READERS[kind](stored, ask)
    except ImageError:
        raise
    except (*DECODE_ERRORS, zipfile.BadZipFile, RuntimeError) as error:
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"{stored.name} is damaged or cut short ({detail}); copy or make it again") from None


def as_map(array: np.ndarray, name: str | os.PathLike[str]) -> Tensor:
    """An array of `read_stored` as float32 c h w (h w c where both readings fit).

    ImageError when float32 cannot hold its numbers: ids above 2^24 would come out as their neighbours, and
    floats above 3e38 as infinity.
    """
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1) if array.shape[2] <= 4 else array
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and size > 2 and array.size and max(int(array.max()), -int(array.min())) > _EXACT:
        raise ImageError(f"{name} holds whole numbers up to {array.max()}; a map keeps them up to {_EXACT}")
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float32, order="C")
    if kind == "f" and size > 4 and bool((np.isinf(values) & np.isfinite(array)).any()):
        raise ImageError(f"{name} holds floats beyond 3e38, which 32 bits cannot; is it damaged?")
    return torch.from_numpy(values)


def codec_of(path: str | os.PathLike[str]) -> str:
    """The codec that a suffix stands for; for PNG just "png", because the bits are in the file; "" for others."""
    suffix = Path(path).suffix.lower()
    return (
        "tiff" if suffix == ".tif" else "hdf5" if suffix == ".h5" else suffix[1:] if suffix in _KINDS else ""
    )


def write_map(path: str | os.PathLike[str], x: Tensor) -> None:
    """c h w raw values to a file of the suffix's format, whole or not at all.

    .npy and .npz keep float16, else float32; .exr (1 or 3 channels) and .tiff are float32; .png is 16-bit
    grey: one channel of numbers from 0 to 65535, rounded. One channel is stored as h w, more as h w c.
    ImageError for what the format cannot hold.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ImageError(f"{path} is not a map that can be written; maps are {', '.join(MAP_SUFFIXES)}")
    if x.ndim != 3 or x.numel() == 0:
        raise ImageError(f"{path} cannot hold {tuple(x.shape)}; a map is c h w")
    x = x.detach().cpu()
    array = (x if x.dtype == torch.float16 else x.float()).permute(1, 2, 0).contiguous().numpy()
    with atomic_write(path) as temporary:
        write(temporary, array[..., 0] if array.shape[2] == 1 else array, str(path))


def _kind(stored: Stored, codec: str) -> str:
    """The reader that a codec, or else the suffix, asks for."""
    if codec:
        if codec not in READ_CODECS:
            raise ImageError(f"{stored.name}: the codec {codec!r} is not one of {', '.join(READ_CODECS)}")
        return READ_CODECS[codec]
    if stored.suffix not in _KINDS:
        raise ImageError(f"{stored.name} is not a map that can be read; maps are {', '.join(_KINDS)}")
    return _KINDS[stored.suffix]


def _open(stored: Stored, ask: Ask, format: str) -> Image.Image:
    """A picture file as a map: of one frame, as large as allowed, not turned by its camera."""
    image = open_picture(stored.read() if stored.member else stored.path, stored.name, (format,))
    check_size(stored.name, *image.size, ask.max_pixels)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{stored.name} holds several pictures; a map is one")
    if format != "TIFF" and image.getexif().get(0x0112, 1) != 1:
        raise ImageError(
            f"{stored.name} says it is to be turned (EXIF); maps are stored upright, write it again"
        )
    return image


def _read_png(stored: Stored, ask: Ask) -> np.ndarray:
    with stored.open() as file:
        # Bytes 24 and 25 of every PNG: bits per sample, colour type. Pillow hides both.
        bits, color = file.read(26)[24:26]
    wanted = {"png8": 8, "png16": 16}.get(ask.codec)
    with _open(stored, ask, "PNG") as image:
        if wanted and (bits == 16) != (wanted == 16):
            raise ImageError(
                f"{stored.name} has {bits} bits a sample, its codec says {ask.codec}; is it a preview?"
            )
        _check_sums(stored)
        if bits == 16 and color in (2, 4, 6):
            return _read_png_wide(stored)
        image.load()
        array = np.asarray(image)
        # Pillow stretches grey of 2 and 4 bits to 0..255; back to the stored levels.
        return array // (255 // (2**bits - 1)) if color == 0 and bits in (2, 4) else array


def _check_sums(stored: Stored) -> None:
    """ImageError unless every chunk of a PNG has its checksum; Pillow takes flipped bits of pixels for pixels."""
    data, place, kind = memoryview(stored.read()), 8, b""
    while kind != b"IEND":
        length = int.from_bytes(data[place : place + 4], "big")
        kind = bytes(data[place + 4 : place + 8])
        end = place + 8 + length
        if len(kind) < 4 or data[end : end + 4] != zlib.crc32(data[place + 4 : end]).to_bytes(4, "big"):
            raise ImageError(f"{stored.name} is damaged or cut short (a checksum is wrong); copy it again")
        place = end + 4


def _read_png_wide(stored: Stored) -> np.ndarray:
    """16-bit colour, which Pillow would cut to 8 bits: h w c in the order of the file."""
    cv2: Any = need("cv2", f"{stored.name}, a 16-bit colour PNG,")
    array = cv2.imdecode(np.frombuffer(stored.read(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ImageError(f"{stored.name} is damaged or cut short; copy or make it again")
    return array[..., [2, 1, 0, 3][: array.shape[2]]]


def _read_jpeg(stored: Stored, ask: Ask) -> np.ndarray:
    """A map that was published as JPEG: its levels, near what they once were. Only where a codec says so."""
    with _open(stored, ask, "JPEG") as image:
        if image.mode not in ("L", "RGB"):
            raise ImageError(f"{stored.name} is a JPEG of mode {image.mode}; a map is grey or RGB")
        image.load()
        return np.asarray(image)


def _read_tiff(stored: Stored, ask: Ask) -> np.ndarray:
    try:
        image = _open(stored, ask, "TIFF")
    except ImageError as error:
        if "not a picture" not in str(error):
            raise
        # Pillow knows no TIFF of several float channels.
        tifffile = need("tifffile", f"{stored.name}, a TIFF of an uncommon kind,")
        with stored.open() as raw, tifffile.TiffFile(raw) as file:
            page = file.pages[0]
            check_array(stored.name, page.shape, page.dtype, ask.max_pixels)
            return page.asarray()
    with image:
        image.load()
        return np.asarray(image)


def _read_exr(stored: Stored, ask: Ask) -> np.ndarray:
    exr = need("OpenEXR", f"{stored.name}, an EXR file,")
    if not stored.member:
        return _exr_channels(exr, stored.path, stored.name, ask)
    with tempfile.TemporaryDirectory() as folder:
        # The library reads named files only.
        copy = Path(folder) / "member.exr"
        copy.write_bytes(stored.read())
        return np.array(_exr_channels(exr, copy, stored.name, ask))


def _exr_channels(exr: Any, path: Path, name: str, ask: Ask) -> np.ndarray:
    header = exr.File(str(path), header_only=True).header()
    low, high = header["dataWindow"]
    if not all(
        np.array_equal(a, b) for a, b in zip(header["dataWindow"], header["displayWindow"], strict=True)
    ):
        raise ImageError(f"{name} keeps only a window of its picture ({low} to {high}); write it whole")
    check_size(name, int(high[0] - low[0] + 1), int(high[1] - low[1] + 1), ask.max_pixels)
    channels = exr.File(str(path)).channels()
    if ask.key:
        if ask.key not in channels:
            raise ImageError(f"{name} has no channel {ask.key!r}; it has {', '.join(channels)}")
        return channels[ask.key].pixels
    for group in ("RGB", "RGBA"):
        if group in channels:
            return channels[group].pixels[..., :3]
    if len(channels) == 1:
        return next(iter(channels.values())).pixels
    if {"X", "Y", "Z"} <= set(channels):
        return np.stack([channels[c].pixels for c in "XYZ"], axis=-1)
    raise ImageError(
        f"{name} has the channels {', '.join(channels)}; say which by 'key', or store RGB or XYZ"
    )


def _write_npy(path: Path, array: np.ndarray, name: str) -> None:
    np.save(path, array, allow_pickle=False)


def _write_npz(path: Path, array: np.ndarray, name: str) -> None:
    np.savez_compressed(path, map=array)


def _write_png(path: Path, array: np.ndarray, name: str) -> None:
    if array.ndim != 2:
        raise ImageError(f"{name} cannot hold {array.shape[2]} channels of 16 bits; write .npy or .exr")
    array = array.astype(np.float32)
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 65535):
        raise ImageError(f"{name} holds 0 to 65535, this map does not fit; scale it, or write .npy")
    Image.fromarray(np.rint(array).astype(np.uint16)).save(path, format="PNG")


def _write_tiff(path: Path, array: np.ndarray, name: str) -> None:
    if array.ndim == 2:
        Image.fromarray(array.astype(np.float32)).save(path, format="TIFF", compression="tiff_adobe_deflate")
    else:
        need("tifffile", f"{name}, a TIFF of several channels,").imwrite(path, array.astype(np.float32))


def _write_exr(path: Path, array: np.ndarray, name: str) -> None:
    exr = need("OpenEXR", f"{name}, an EXR file,")
    if array.ndim == 3 and array.shape[2] != 3:
        raise ImageError(f"{name} cannot hold {array.shape[2]} channels; an EXR map has 1 or 3")
    group = "Y" if array.ndim == 2 else "RGB"
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, {group: np.ascontiguousarray(array, dtype=np.float32)}).write(str(path))


# The codecs that are read, and the reader of each.
READ_CODECS: dict[str, str] = {
    "png8": "png",
    "png16": "png",
    "png": "png",
    "jpg8": "jpeg",
    "npy": "npy",
    "npz": "npz",
    "exr": "exr",
    "tiff": "tiff",
    "hdf5": "hdf5",
    "mat": "mat",
    "raw_f32": "raw_f32",
}
_READERS: dict[str, Callable[[Stored, Ask], np.ndarray]] = {
    "png": _read_png,
    "jpeg": _read_jpeg,
    "npy": read_npy,
    "npz": read_npz,
    "exr": _read_exr,
    "tiff": _read_tiff,
    "hdf5": read_hdf5,
    "mat": read_mat,
    "raw_f32": read_raw,
}
# What an argument other than the file is for.
_ONLY = {
    "key": ("npz", "hdf5", "mat", "exr"),
    "index": ("npy", "hdf5", "mat"),
    "shape": ("raw_f32",),
}
_WRITERS: dict[str, Callable[[Path, np.ndarray, str], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".png": _write_png,
    ".exr": _write_exr,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
}
# What is read by its suffix alone; a JPEG is a map, and raw floats are, only where a codec says so.
_KINDS = {
    ".npy": "npy",
    ".npz": "npz",
    ".png": "png",
    ".exr": "exr",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".mat": "mat",
}
# Of the library's own maps.
MAP_SUFFIXES: tuple[str, ...] = tuple(_WRITERS)
