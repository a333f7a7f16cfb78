"""Readers of arrays in their stored type: .npy, .npz, HDF5, MATLAB's .mat, raw floats.

Pickles are not read, links in HDF5 files are not followed, and the size of an array is checked in the file's header
before its data are read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import IO, Any

import numpy as np

from twofold.image.errors import ImageError, check_size, import_reader
from twofold.image.stored import Stored

# Three channels of float32.
_MAX_PIXEL_BYTES = 12


@dataclass(frozen=True)
class ReadOptions:
    """Selection of an array in a file, and its maximal size.

    codec       name of the encoding, if the suffix does not determine it
    key         for .npz, HDF5, MAT, EXR: name of the array (EXR: channel or layer)
    index       for .npy, HDF5, MAT: index of the map in a stack (first axis; last axis in MATLAB)
    shape       for raw floats: (height, width) or (height, width, channels)
    max_pixels  maximal number of pixels of one map
    """

    codec: str = ""
    key: str = ""
    index: int | None = None
    shape: tuple[int, ...] | None = None
    max_pixels: int = 0


def check_array(name: str, shape: tuple[int, ...], dtype: np.dtype, max_pixels: int) -> None:
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
    # A compressed file of a megabyte may expand to gigabytes: check the size in the header first.
    if math.prod(shape) * dtype.itemsize > _MAX_PIXEL_BYTES * max_pixels:
        size = f"{math.prod(shape) * dtype.itemsize / 2**20:.0f} MB ({dtype}, {shape})"
        raise ImageError(
            f"{name} holds {size}; the limit is {_MAX_PIXEL_BYTES} bytes for each of {max_pixels / 1e6:g} megapixels; "
            "store float32 or fewer channels, or raise the limit with --max-pixels"
        )


def read_npy(stored: Stored, options: ReadOptions) -> np.ndarray:
    """A .npy file, or one map of a stack."""
    if options.index is None:
        with stored.open() as file:
            return _read_npy(file, stored.name, options.max_pixels)
    if stored.member:
        raise ImageError(f"{stored.name} is a stack within a tar; unpack it first")
    return _one_of(np.load(stored.path, mmap_mode="r", allow_pickle=False), stored.name, options)


def _read_npy(file: IO[bytes], name: str, max_pixels: int) -> np.ndarray:
    """One .npy stream. Its header is checked before its data is read, and objects (pickles) are refused."""
    start = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if start == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    check_array(name, shape, dtype, max_pixels)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(stored: Stored, options: ReadOptions) -> np.ndarray:
    """The one array of a .npz file, or the one called `key`."""
    with stored.open() as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        wanted = [n for n in names if n.removesuffix(".npy") == options.key] if options.key else names
        if len(wanted) != 1:
            there = ", ".join(n.removesuffix(".npy") for n in names)[:80]
            what = f"no array {options.key!r}" if options.key else f"{len(names)} arrays"
            raise ImageError(f"{stored.name} has {what} (it has {there}); select one with 'key'")
        with archive.open(wanted[0]) as array:
            return _read_npy(array, stored.name, options.max_pixels)


def read_hdf5(stored: Stored, options: ReadOptions) -> np.ndarray:
    """A dataset of an HDF5 file: the one called `key`, or the only one."""
    with _opened_hdf5(stored) as (h5py, file):
        return np.asarray(_one_of(_dataset(h5py, file, stored.name, options), stored.name, options))


@contextmanager
def _opened_hdf5(stored: Stored) -> Generator[tuple[ModuleType, Any]]:
    h5py: Any = import_reader("h5py", f"{stored.name}, an HDF5 file,")
    with stored.open() as raw, h5py.File(raw, "r") as file:
        yield h5py, file


def count_hdf5(stored: Stored, options: ReadOptions) -> int:
    """Number of maps of a stack in an HDF5 file or a MAT file of version 7.3."""
    with _opened_hdf5(stored) as (h5py, file):
        found = _dataset(h5py, file, stored.name, options)
        if found.ndim < 3:
            raise ImageError(
                f"{stored.name} has shape {tuple(found.shape)}; a stack of maps has at least 3 axes"
            )
        return int(found.shape[0])


def _dataset(h5py: Any, file: Any, name: str, options: ReadOptions) -> Any:
    """The requested dataset; links, external files and virtual datasets are refused."""
    there = [key for key in file if not key.startswith("#")]
    key = options.key or (there[0] if len(there) == 1 else "")
    if not key:
        raise ImageError(f"{name} holds {', '.join(there)[:80]}; select one with 'key'")
    found: Any = file
    for part in key.strip("/").split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise ImageError(f"{name} has no dataset {key!r}; it holds {', '.join(there)[:80]}")
        if not isinstance(link, h5py.HardLink):
            raise ImageError(f"{name}: {key!r} is a link; links of HDF5 files are not followed")
        found = found.get(part)
    if not isinstance(found, h5py.Dataset):
        raise ImageError(f"{name}: {key!r} is a group of datasets; select one with 'key'")
    if found.external or found.is_virtual:
        raise ImageError(f"{name}: {key!r} keeps its data in other files; copy it into one")
    if found.chunks and math.prod(found.chunks) > 4 * options.max_pixels:
        raise ImageError(
            f"{name}: {key!r} is stored in chunks of {found.chunks}; write it again with smaller chunks"
        )
    return found


def _one_of(array: Any, name: str, options: ReadOptions) -> Any:
    """The array, or the map `index` of a stack of them, checked before its data is read."""
    if options.index is None:
        check_array(name, tuple(array.shape), np.dtype(array.dtype), options.max_pixels)
        return array[()]
    if not array.ndim > 2 or not 0 <= options.index < array.shape[0]:
        raise ImageError(f"{name} has shape {tuple(array.shape)} and no map of index {options.index}")
    check_array(name, tuple(array.shape[1:]), np.dtype(array.dtype), options.max_pixels)
    return array[options.index]


def read_mat(stored: Stored, options: ReadOptions) -> np.ndarray:
    """A variable of a MATLAB file of any version, in MATLAB's order of axes: h w, h w c, and stacks last."""
    with stored.open() as file:
        if file.read(19).startswith(b"MATLAB 7.3 MAT-file"):
            # An HDF5 file with MATLAB's axes in reverse order, so the stack axis is the first.
            return read_hdf5(stored, options).T
        file.seek(0)
        return _read_mat5(file, stored.name, options)


def _read_mat5(file: IO[bytes], name: str, options: ReadOptions) -> np.ndarray:
    from scipy.io import loadmat, matlab, whosmat

    try:
        there = {variable: tuple(shape) for variable, shape, _ in whosmat(file)}
        key = options.key or (next(iter(there)) if len(there) == 1 else "")
        if key not in there:
            what = f"has no variable {key!r}" if key else "has several variables"
            raise ImageError(f"{name} {what} (it has {', '.join(there)[:80]}); select one with 'key'")
        stack = len(there[key]) - (options.index is not None)
        check_array(name, there[key][:stack], np.dtype("f8"), options.max_pixels)
        file.seek(0)
        array = loadmat(file, variable_names=[key])[key]
    except matlab.MatReadError as error:
        raise ImageError(f"{name} is damaged or cut short ({error}); copy it again") from None
    if options.index is not None:
        array = np.moveaxis(array, -1, 0)
    return _one_of(array, name, options)


def read_raw(stored: Stored, options: ReadOptions) -> np.ndarray:
    """Little-endian 32-bit floats, row by row, without a header; the descriptor has their `shape`."""
    if not options.shape:
        raise ImageError(f"{stored.name} has raw floats; set their 'shape' [height, width]")
    shape = tuple(int(n) for n in options.shape)
    if min(shape) < 1:
        raise ImageError(f"{stored.name}: its shape is {list(shape)}; expected positive numbers")
    check_array(stored.name, shape, np.dtype("<f4"), options.max_pixels)
    if stored.size != 4 * math.prod(shape):
        wanted = f"{4 * math.prod(shape)} for {'x'.join(map(str, shape))} floats"
        raise ImageError(
            f"{stored.name} has {stored.size} bytes, not {wanted}; copy it again, or fix the shape"
        )
    if stored.member:
        return np.frombuffer(stored.read(), dtype="<f4").reshape(shape)
    return np.memmap(stored.path, dtype="<f4", mode="r", shape=shape)
