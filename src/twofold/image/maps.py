"""Maps: raw numbers in files, exactly as stored. What they mean is said by `twofold.data.codecs`."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.image.files import atomic_write
from twofold.image.pictures import (
    DECODE_ERRORS,
    MAX_PIXELS,
    ImageError,
    check_file,
    check_size,
    open_picture,
    shown,
)


def read_map(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Tensor:
    """Raw values as stored: float32 c h w. The suffix names the format (MAP_SUFFIXES).

    Arrays are h w, h w c or c h w with at most 4 channels (h w c where both readings fit). Palettes give
    their indices, grey of 1 to 16 bits its levels. The size is checked before decoding; pickles are never
    read. ImageError for any file that is not such a map.
    """
    file, name = check_file(path), shown(path)
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise ImageError(f"{name} is not a map that can be read; maps are {', '.join(MAP_SUFFIXES)}")
    if file.stat().st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = read(file, max_pixels)
    except ImageError:
        raise
    except (*DECODE_ERRORS, zipfile.BadZipFile, RuntimeError) as error:
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({detail}); copy or make it again") from None
    return torch.from_numpy(np.array(_channels_first(array), dtype=np.float32, order="C"))


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


def _channels_first(array: np.ndarray) -> np.ndarray:
    """h w, h w c or c h w to c h w."""
    if array.ndim == 2:
        return array[None]
    if array.shape[2] <= 4:
        return array.transpose(2, 0, 1)
    return array


def _check_array(name: str, shape: tuple[int, ...], dtype: np.dtype, max_pixels: int) -> None:
    """ImageError unless an array of this shape and type is a map of at most `max_pixels`."""
    if dtype.kind not in "fiub":
        raise ImageError(f"{name} holds {dtype}, not numbers; a map is an array of floats or integers")
    if len(shape) == 2:
        height, width = shape
    elif len(shape) == 3 and shape[2] <= 4:
        height, width, _ = shape
    elif len(shape) == 3 and shape[0] <= 4:
        _, height, width = shape
    else:
        raise ImageError(f"{name} has shape {shape}; a map is h w, h w c or c h w with at most 4 channels")
    check_size(name, width, height if math.prod(shape) else 0, max_pixels)


def _need(module: str, name: str) -> ModuleType:
    """An optional reader; ImageError saying how to get it when it is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImageError(f"{name} needs the package {module}; run: pip install 'twofold[io]'") from None


def _read_npy(path: Path, max_pixels: int) -> np.ndarray:
    with open(path, "rb") as file:
        return _read_array(file, str(path), max_pixels)


def _read_array(file, name: str, max_pixels: int) -> np.ndarray:
    """One .npy stream. Its header is judged before its data is read, and objects (pickles) are refused."""
    start = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if start == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    _check_array(name, shape, dtype, max_pixels)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_npz(path: Path, max_pixels: int) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ImageError(
                f"{path} holds {len(names)} arrays ({', '.join(names)[:80]}); a map is one array"
            )
        with archive.open(names[0]) as file:
            return _read_array(file, str(path), max_pixels)


def _read_png(path: Path, max_pixels: int) -> np.ndarray:
    with open_picture(path, str(path), ("PNG",)) as image:
        check_size(str(path), *image.size, max_pixels)
        with open(path, "rb") as file:
            # Bytes 24 and 25 of every PNG: bits per sample, colour type. Pillow hides both.
            bits, color = file.read(26)[24:26]
        if bits == 16 and color in (2, 4, 6):
            return _read_png_wide(path)
        image.load()
        array = np.asarray(image)
        # Pillow stretches grey of 2 and 4 bits to 0..255; back to the stored levels.
        return array // (255 // (2**bits - 1)) if color == 0 and bits in (2, 4) else array


def _read_png_wide(path: Path) -> np.ndarray:
    """16-bit colour, which Pillow would cut to 8 bits: h w c in the order of the file."""
    cv2 = _need("cv2", f"{path}, a 16-bit colour PNG,")
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ImageError(f"{path} is damaged or cut short; copy or make it again")
    return array[..., [2, 1, 0, 3][: array.shape[2]]]


def _read_tiff(path: Path, max_pixels: int) -> np.ndarray:
    try:
        image = open_picture(path, str(path), ("TIFF",))
    except ImageError:
        # Pillow knows no TIFF of several float channels.
        tifffile = _need("tifffile", f"{path}, a TIFF of an uncommon kind,")
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            _check_array(str(path), page.shape, page.dtype, max_pixels)
            return page.asarray()
    with image:
        check_size(str(path), *image.size, max_pixels)
        image.load()
        return np.asarray(image)


def _read_exr(path: Path, max_pixels: int) -> np.ndarray:
    exr = _need("OpenEXR", f"{path}, an EXR file,")
    low, high = exr.File(str(path), header_only=True).header()["dataWindow"]
    check_size(str(path), int(high[0] - low[0] + 1), int(high[1] - low[1] + 1), max_pixels)
    channels = exr.File(str(path)).channels()
    for group in ("RGB", "RGBA"):
        if group in channels:
            return channels[group].pixels[..., :3]
    if len(channels) == 1:
        return next(iter(channels.values())).pixels
    if {"X", "Y", "Z"} <= set(channels):
        return np.stack([channels[c].pixels for c in "XYZ"], axis=-1)
    raise ImageError(f"{path} has the channels {', '.join(channels)}; a map has RGB, XYZ or one channel")


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
        _need("tifffile", f"{name}, a TIFF of several channels,").imwrite(path, array.astype(np.float32))


def _write_exr(path: Path, array: np.ndarray, name: str) -> None:
    exr = _need("OpenEXR", f"{name}, an EXR file,")
    if array.ndim == 3 and array.shape[2] != 3:
        raise ImageError(f"{name} cannot hold {array.shape[2]} channels; an EXR map has 1 or 3")
    group = "Y" if array.ndim == 2 else "RGB"
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, {group: np.ascontiguousarray(array, dtype=np.float32)}).write(str(path))


_READERS: dict[str, Callable[[Path, int], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_png,
    ".exr": _read_exr,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
}
_WRITERS: dict[str, Callable[[Path, np.ndarray, str], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".png": _write_png,
    ".exr": _write_exr,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
}
MAP_SUFFIXES: tuple[str, ...] = tuple(_READERS)
