"""Maps: raw numbers in files, read and written without scaling. `twofold.data.codecs` defines their meaning."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.image.arrays import (
    ReadOptions,
    count_hdf5,
    read_hdf5,
    read_mat,
    read_npy,
    read_npz,
    read_raw,
)
from twofold.image.bands import row_bands
from twofold.image.errors import ImageError, decoding, import_reader
from twofold.image.png import write_png
from twofold.image.rasters import read_exr, read_jpeg, read_png, read_tiff
from twofold.image.stored import Stored, find_stored
from twofold.io import atomic_write
from twofold.io.limits import pixel_limit

# float32 represents every integer up to this exactly.
_EXACT = 2**24


def read_map(
    path: str | os.PathLike[str],
    max_pixels: int | None = None,
    *,
    codec: str = "",
    key: str = "",
    index: int | None = None,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Raw stored values as float32 c h w. See `read_stored` for the arguments and errors."""
    return as_map(read_stored(path, max_pixels, codec=codec, key=key, index=index, shape=shape), path)


def read_stored(
    path: str | os.PathLike[str],
    max_pixels: int | None = None,
    *,
    codec: str = "",
    key: str = "",
    index: int | None = None,
    shape: Sequence[int] | None = None,
) -> np.ndarray:
    """The array of a map in its stored type: h w, h w c or c h w, with at most 4 channels.

    path    a file, or a member of a tar: `x.tar::a/b.png`
    codec   one of READ_CODECS, by default that of the suffix; png8 and png16 files must have 8 and 16 bits
    key, index, shape  see `arrays.ReadOptions`
    max_pixels  maximal number of pixels of one map; by default `pixel_limit()`

    Palette files are read as indices, grey of 1 to 16 bits as levels, colour in the channel order of the file. The size
    is checked before decoding; pickles are not read. ImageError for any file that is not such a map.
    """
    stored = find_stored(path)
    kind = _kind(stored, codec)
    options = ReadOptions(
        codec, key, index, None if shape is None else tuple(shape), max_pixels or pixel_limit()
    )
    for what, kinds in _ONLY.items():
        if getattr(options, what) not in ("", None) and kind not in kinds:
            raise ImageError(
                f"{stored.name}: '{what}' applies to {', '.join(kinds)}, but this is read as {kind}"
            )
    with _reading(stored):
        return _READERS[kind](stored, options)


def stack_size(path: str | os.PathLike[str], key: str) -> int:
    """Number of maps of the stack `key` in an HDF5 file or a MAT file of version 7.3."""
    stored = find_stored(path)
    with _reading(stored):
        return count_hdf5(stored, ReadOptions(key=key, max_pixels=pixel_limit()))


@contextmanager
def _reading(stored: Stored) -> Generator[None]:
    if stored.size == 0:
        raise ImageError(f"{stored.name} is empty (0 bytes); copy or download it again")
    with decoding(stored.name, "copy or make it again"):
        yield


def as_map(array: np.ndarray, name: str | os.PathLike[str]) -> Tensor:
    """An array of `read_stored` as float32 c h w; an ambiguous shape is read as h w c.

    ImageError when float32 cannot represent its values: integers above 2^24 or floats above 3e38.
    """
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1) if array.shape[2] <= 4 else array
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and size > 2 and array.size and max(int(array.max()), -int(array.min())) > _EXACT:
        raise ImageError(f"{name} holds integers up to {array.max()}; a map supports them up to {_EXACT}")
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float32, order="C")
    if kind == "f" and size > 4 and bool((np.isinf(values) & np.isfinite(array)).any()):
        raise ImageError(f"{name} holds floats beyond 3e38, the limit of float32; is it damaged?")
    return torch.from_numpy(values)


def codec_of(path: str | os.PathLike[str]) -> str:
    """The codec of a suffix; "png" for PNG, because the bits are in the file; "" for unknown suffixes."""
    suffix = Path(path).suffix.lower()
    return (
        "tiff" if suffix == ".tif" else "hdf5" if suffix == ".h5" else suffix[1:] if suffix in _KINDS else ""
    )


def write_map(path: str | os.PathLike[str], x: Tensor, text: Mapping[str, str] | None = None) -> None:
    """Write raw values c h w to a file in the format of its suffix, atomically.

    .npy and .npz are float16 or float32; .exr (1 or 3 channels) and .tiff are float32; .png is 16-bit
    grey: one channel of values from 0 to 65535, rounded. One channel is stored as h w, more as h w c.
    `text` entries are written into a PNG, by key; other formats have none.
    ImageError for values that the format cannot store.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ImageError(f"{path} is not a map that can be written; maps are {', '.join(MAP_SUFFIXES)}")
    if x.ndim != 3 or x.numel() == 0:
        raise ImageError(f"{path} cannot hold {tuple(x.shape)}; a map is c h w")
    x = x.detach().cpu()
    # A view; the writers copy as needed.
    array = (x if x.dtype == torch.float16 else x.float()).permute(1, 2, 0).numpy()
    flat = array[..., 0] if array.shape[2] == 1 else array
    if text and write is not _write_png:
        raise ImageError(f"{path} cannot store text; only a PNG can")
    with atomic_write(path) as temporary:
        if text:
            _write_png(temporary, flat, str(path), text)
        else:
            write(temporary, flat, str(path))


def _kind(stored: Stored, codec: str) -> str:
    """The reader for a codec, or for the suffix without one."""
    if codec:
        if codec not in READ_CODECS:
            raise ImageError(f"{stored.name}: the codec {codec!r} is not one of {', '.join(READ_CODECS)}")
        return READ_CODECS[codec]
    if stored.suffix not in _KINDS:
        raise ImageError(f"{stored.name} is not a map that can be read; maps are {', '.join(_KINDS)}")
    return _KINDS[stored.suffix]


def _write_npy(path: Path, array: np.ndarray, name: str) -> None:
    with path.open("wb") as file:
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for top, bottom in row_bands(*array.shape[:2]):
            np.ascontiguousarray(array[top:bottom]).tofile(file)


def _write_npz(path: Path, array: np.ndarray, name: str) -> None:
    np.savez_compressed(path, map=np.ascontiguousarray(array))


def _write_png(path: Path, array: np.ndarray, name: str, text: Mapping[str, str] | None = None) -> None:
    if array.ndim != 2:
        raise ImageError(f"{name} cannot hold {array.shape[2]} channels of 16 bits; write .npy or .exr")
    if not (array.min() >= 0 and array.max() <= 65535):  # false of NaN, too
        raise ImageError(f"{name} can store values from 0 to 65535 only; scale the map, or write .npy")
    levels = partial(_levels, array)
    write_png(path, levels, (array.shape[0], array.shape[1]), text)


def _levels(array: np.ndarray, top: int, bottom: int) -> np.ndarray:
    return np.rint(array[top:bottom].astype(np.float32)).astype(np.uint16)


def _write_tiff(path: Path, array: np.ndarray, name: str) -> None:
    if array.ndim == 2:
        Image.fromarray(array.astype(np.float32)).save(path, format="TIFF", compression="tiff_adobe_deflate")
    else:
        import_reader("tifffile", f"{name}, a TIFF of several channels,").imwrite(
            path, array.astype(np.float32)
        )


def _write_exr(path: Path, array: np.ndarray, name: str) -> None:
    exr = import_reader("OpenEXR", f"{name}, an EXR file,")
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
_READERS: dict[str, Callable[[Stored, ReadOptions], np.ndarray]] = {
    "png": read_png,
    "jpeg": read_jpeg,
    "npy": read_npy,
    "npz": read_npz,
    "exr": read_exr,
    "tiff": read_tiff,
    "hdf5": read_hdf5,
    "mat": read_mat,
    "raw_f32": read_raw,
}
# The readers that each argument applies to.
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
# Suffixes that are read without a codec; JPEG and raw floats need one.
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
# Suffixes that `write_map` supports.
MAP_SUFFIXES: tuple[str, ...] = tuple(_WRITERS)
