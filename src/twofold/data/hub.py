"""Import of Hugging Face datasets to data folders: columns become images, targets and captions.

Supported are datasets saved by `datasets` (`save_to_disk`), Parquet files, and names of hub datasets, whose Parquet
files are downloaded. The library `datasets` is deliberately not used: its `Image` columns open images with Pillow,
which silently reduces 16-bit colour (such as normals) to 8 bits, and open any local file that a row names. Here the
stored bytes are read by the library's own readers, and paths are not followed. No code of a repository is run. Needs
the extra `data`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from twofold.data.codecs import decode
from twofold.data.layout import FolderError
from twofold.data.tables import iter_rows, split_files
from twofold.data.writer import FolderWriter
from twofold.geometry import Camera
from twofold.image import ImageError, read_image
from twofold.image.maps import as_map, read_stored
from twofold.image.raster_format import RasterFormat, array_format, raster_format
from twofold.io import report_disk_full
from twofold.sample import Provenance, Sample
from twofold.targets import target_spec

# First bytes of each format, and its suffix.
_MAGIC_BYTES = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\x00": ".tiff", b"MM\x00*": ".tiff", b"v/1\x01": ".exr",
    b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz", b"\x89HDF": ".hdf5",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Names of the columns.

    image    image: bytes of a file, or a struct of bytes and path, as stored by `datasets.Image`
    targets  by target name: (column, descriptor). The column holds such bytes, or numbers h w or h w c; for the
             descriptor see `data.codecs`
    caption  text; "" for none
    id       text or numbers; "" numbers the samples
    camera   fx fy cx cy or a 3x3 matrix; "" for none
    """

    image: str = "image"
    targets: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    caption: str = ""
    id: str = ""
    camera: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read."""
        used = (
            self.image,
            self.caption,
            self.id,
            self.camera,
            *(column for column, _ in self.targets.values()),
        )
        return tuple(dict.fromkeys(name for name in used if name))


def import_table(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    columns: Columns,
    split: str = "",
    licence: str = "",
    kind: Literal["real", "rendered", "synthetic"] = "real",
    limit: int = 0,
    revision: str = "",
) -> Iterator[tuple[str, bool]]:
    """Write the rows of a table as samples of the data folder `out`; yields (id, whether it was written now).

    source   a folder that `datasets` saved, a Parquet or Arrow file, a folder of Parquet files, or the name of a
             dataset on the hub (`owner/name`, at `revision`)
    split    required when there are several

    A generator; after a kill the same call continues. A null value means that the sample lacks the target.
    FolderError for a missing source, split or column, and for an invalid value, with its row.
    """
    files = split_files(source, split, revision)
    header = {
        "name": Path(source).name,
        "split": split,
        "licence": licence or "not stated",
        "source": str(source),
        "targets": {
            name: target_spec(name).lossless_storage(how) for name, (_, how) in columns.targets.items()
        },
    }
    writer = FolderWriter(out, header)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(iter_rows(files, columns.names)):
            if limit and number >= limit:
                break
            id = str(row[columns.id]) if columns.id else f"{number:06d}"
            where = f"{source}, row {number}"
            if id in seen:
                raise FolderError(f"{where} repeats the id {id!r}; take another column, or none")
            seen.add(id)
            if writer.has(id):
                yield id, False
                continue
            writer.write(_sample(row, id, columns, kind, Path(folder), where))
            yield id, True
    if not writer.finish():
        raise FolderError(f"{source} has no rows")


def _sample(row: Mapping[str, Any], id: str, columns: Columns, kind: Any, folder: Path, where: str) -> Sample:
    image = _image(row[columns.image], f"{where}, column {columns.image!r}")
    height, width = image.shape[-2:]
    camera = _camera(row.get(columns.camera), width, height, where) if columns.camera else None
    targets: dict[str, Tensor] = {}
    valid: dict[str, Tensor] = {}
    for name, (column, how) in columns.targets.items():
        if row[column] is None:
            continue
        place = f"{where}, column {column!r}"
        try:
            array, stored = _map(row[column], how, folder, place)
            targets[name], valid[name] = decode(name, as_map(array, place), how, camera, stored)
            problem = target_spec(name).problem(targets[name], valid[name], how, array)
            if problem:
                raise ValueError(problem)
        except (ValueError, TypeError) as error:
            raise FolderError(str(error) if place in str(error) else f"{place}: {error}") from None
        if targets[name].shape[-2:] != image.shape[-2:]:
            found = "x".join(map(str, targets[name].shape[-2:]))
            raise FolderError(
                f"{place}: {name} is {found}, the image {height}x{width}; resize one to the other"
            )
    caption = row[columns.caption] if columns.caption else ""
    if not isinstance(caption, str | None):
        raise FolderError(
            f"{where}, column {columns.caption!r} holds {type(caption).__name__}; a caption is text"
        )
    return Sample(image, targets, valid, caption or "", id, camera, Provenance(kind))


def _image(value: Any, place: str) -> Tensor:
    data = _bytes(value, place)
    if data is None:
        raise FolderError(f"{place} holds {type(value).__name__}; an image is the bytes of a file")
    try:
        return read_image(data)
    except ImageError as error:
        raise FolderError(f"{place}: {error}") from None


def _map(value: Any, how: Mapping[str, Any], folder: Path, place: str) -> tuple[np.ndarray, RasterFormat]:
    """The array of a stored map without scaling, and its format."""
    data = _bytes(value, place)
    if data is None:
        return _array(value, place)
    suffix = next((s for begin, s in _MAGIC_BYTES.items() if data.startswith(begin)), "")
    if not suffix:
        raise FolderError(f"{place} begins with {data[:8]!r}, which is not a known map format")
    path = folder / f"map{suffix}"
    with report_disk_full(path):
        path.write_bytes(data)
    codec = str(how.get("codec", ""))
    try:
        array = read_stored(path, codec=codec, key=str(how.get("key", "")))
        return array, raster_format(path, array, codec)
    except ImageError as error:
        raise FolderError(f"{place}: {str(error).replace(str(path), 'the file')}") from None


def _bytes(value: Any, place: str) -> bytes | None:
    """The bytes of a file in a cell; None for numbers. FolderError for a path without bytes: paths are not followed."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and "bytes" in value:
        if value["bytes"] is None:
            raise FolderError(
                f"{place} has the path of a file ({value.get('path')!r}) without its content; save the dataset with "
                "embedded files (embed_external_files)"
            )
        return value["bytes"]
    return None


def _array(value: Any, place: str) -> tuple[np.ndarray, RasterFormat]:
    """Nested lists h w, h w c or c h w of numbers as an array, and the format of its type."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3) or 0 in array.shape:
        raise FolderError(f"{place} holds {array.dtype} {array.shape}; a map is numbers h w, h w c or c h w")
    if array.ndim == 3 and min(array.shape[0], array.shape[2]) > 4:
        raise FolderError(f"{place} has shape {array.shape}; a map has at most 4 channels")
    return array, array_format(array.dtype)


def _camera(value: Any, width: int, height: int, where: str) -> Camera | None:
    if value is None:
        return None
    try:
        numbers = np.asarray(value, dtype=np.float64)
        if numbers.shape == (4,):
            fx, fy, cx, cy = numbers.tolist()
            return Camera(fx, fy, cx, cy, width, height)
        return Camera.from_matrix(numbers.tolist(), width, height)
    except (ValueError, TypeError) as error:
        raise FolderError(f"{where}: invalid camera: {error}") from None
