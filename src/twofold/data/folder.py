"""Reading of data folders: `Folder(root)[i]` is a `Sample`."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from twofold.data.codecs import Descriptor
from twofold.data.descriptors import merge_descriptors
from twofold.data.images import read_row_image
from twofold.data.layout import FolderError, Row, files_root, read_header, read_rows
from twofold.data.points import is_inline, render_inline
from twofold.data.targets import descriptor, read_target
from twofold.geometry import Camera
from twofold.image.square import map_resized_to_square, resized_to_square
from twofold.sample import Provenance, Sample
from twofold.targets import TARGETS, target_spec

# KITTI's depth benchmark: the lowest 352 rows, the middle 1216 columns.
_KITTI = (1216, 352)


class Folder(Dataset[Sample]):
    """The samples of a data folder, in the order of its manifest: a map-style `torch.utils.data.Dataset`.

    ids     the id of each sample
    rows    the rows of the manifest
    header  the content of `dataset.json`; {} when there is none
    files   the folder that the rows' paths are relative to: the folder itself, or the header's `root`

    Files are opened when a sample is read. FolderError names the invalid file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        targets: Sequence[str] | None = None,
        override: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the manifest and no other file.

        Args:
            root: the folder.
            targets: names of the targets to read, by default all; a row may lack some.
            override: entries that replace those of the header, such as ``{"crop": "kitti-benchmark"}``; its ``targets``
                are merged into the descriptors of the targets that some row has.
        """
        if not Path(root).is_dir():
            raise FolderError(f"{root} is not a folder; check the path")
        # Resolved once, so that each file can be checked to lie below it.
        self.root = Path(os.path.realpath(root))
        self.header: dict[str, Any] = read_header(self.root)
        self.files = files_root(self.root, self.header)
        if not self.files.is_dir():
            raise FolderError(
                f"{self.root} has its files in {self.files}, which is not there; convert it again"
            )
        self.rows: tuple[Row, ...] = tuple(read_rows(self.root))
        self.targets = None if targets is None else tuple(targets)
        available = {name for row in self.rows for name in row.get("targets") or {}}
        self.header |= _apply_override(self.header, override or {}, available)
        for name in self.targets or ():
            if name not in available and name not in TARGETS:
                raise FolderError(f"no sample of {self.root} has {name!r}; there are {sorted(available)}")

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each sample, in order."""
        return tuple(row["id"] for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """One sample, in the library's units and frames (`targets.TARGETS`)."""
        row = self.rows[index]
        where = f"{self.root.name}, sample {row['id']!r}"
        full_image = read_row_image(self.files, self.header, row, where)
        height, width = full_image.shape[-2:]
        camera = _camera(row, width, height, where)
        read = {n: self._target(row, n, camera, (height, width), where) for n in self._names(row)}
        left, top, width, height = _crop(row.get("crop") or self.header.get("crop"), height, width, where)
        image = _slice(full_image, left, top, width, height)
        if row.get("size") not in (None, [height, width]):
            raise FolderError(
                f"{where}: the image is {height}x{width}, but its row has the size {row['size']}; fix the row"
            )
        if camera is not None:
            camera = camera.cropped(left, top, width, height)
        parts = {n: tuple(_slice(x, left, top, width, height) for x in read[n]) for n in read}
        image, boxed, inline = self._render_inline(row, image, where)
        parts |= inline
        edge = self._square_edge(where)
        if edge:
            image, parts, boxed = (
                resized_to_square(image.double(), edge).float(),
                _resize_to_square(parts, edge),
                True,
            )
        return Sample(
            image=image,
            targets={name: part[0] for name, part in parts.items()},
            valid={name: part[1] for name, part in parts.items()},
            caption=_caption(row),
            id=row["id"],
            camera=None if boxed else camera,
            origin=_provenance(row, where),
        )

    def _names(self, row: Row, inline: bool = False) -> list[str]:
        """The requested targets of a row that are stored in files, or with ``inline`` those in the row itself."""
        targets = row.get("targets") or {}
        requested = [n for n in targets if self.targets is None or n in self.targets]
        return [n for n in requested if is_inline(targets[n]) == inline]

    def _square_edge(self, where: str) -> int:
        """The edge in pixels of the square that images are resized to (``squeeze`` of the header); 0 for none."""
        edge = self.header.get("squeeze", 0)
        if not isinstance(edge, int) or edge < 0:
            raise FolderError(
                f"{where}: the header's squeeze is an edge in pixels, such as 512, not {edge!r}"
            )
        return edge

    def descriptor(self, row: Row, name: str) -> Descriptor:
        """Descriptor of the target `name` of a row: the header's, updated with the row's entries."""
        return descriptor(self.header, row, name)

    def crop(self, x: Tensor, row: Row) -> Tensor:
        """Crop and resize a map (c h w, of the size of the row's image file) like the sample's image."""
        crop = row.get("crop") or self.header.get("crop")
        x = _slice(x, *_crop(crop, x.shape[-2], x.shape[-1], str(row["id"])))
        edge = self._square_edge(str(row["id"]))
        return resized_to_square(x.double(), edge).to(x.dtype) if edge else x

    def _render_inline(
        self, row: Row, image: Tensor, where: str
    ) -> tuple[Tensor, bool, dict[str, tuple[Tensor, Tensor]]]:
        """The image, whether it was cropped to a box, and the row's inline targets."""
        inline = self._names(row, inline=True)
        try:
            found, cropped, read = render_inline(image, {n: self.descriptor(row, n) for n in inline})
        except ValueError as error:
            raise FolderError(f"{where}: {error}") from None
        others = self._names(row)
        if cropped and others:
            raise FolderError(
                f"{where}: {inline[0]} crops the image to a box, and {others[0]} is of the whole image; select one of "
                f"them: Folder(root, targets=({inline[0]!r},))"
            )
        return found, cropped, read

    def _target(
        self, row: Row, name: str, camera: Camera | None, size: tuple[int, int], where: str
    ) -> tuple[Tensor, Tensor]:
        return read_target(self.files, name, self.descriptor(row, name), camera, size, where)

    def select(self, ids: Iterable[str]) -> Folder:
        """The folder with these samples only, in this order. FolderError for an unknown id."""
        by_id = {row["id"]: row for row in self.rows}
        chosen = list(ids)
        missing = [id for id in chosen if id not in by_id]
        if missing:
            raise FolderError(
                f"{self.root} has no sample {missing[0]!r} ({len(missing)} of the ids are missing)"
            )
        part = copy.copy(self)
        part.rows = tuple(by_id[id] for id in chosen)
        return part


def _apply_override(
    header: Mapping[str, Any], override: Mapping[str, Any], available: set[str]
) -> dict[str, Any]:
    """The entries of ``override`` that replace those of ``header``, with descriptors merged."""
    targets = dict(header.get("targets") or {})
    for name, how in (override.get("targets") or {}).items():
        if name in available:
            targets[name] = merge_descriptors(targets.get(name, {}), how)
    return {**override, "targets": targets} if "targets" in override else dict(override)


def _caption(row: Row) -> str:
    """The caption of a row: `text` (Hugging Face's ImageFolder) or `caption`."""
    for key in ("text", "caption"):
        if isinstance(row.get(key), str):
            return row[key]
    return ""


def _camera(row: Row, width: int, height: int, where: str) -> Camera | None:
    matrix = (row.get("camera") or {}).get("K")
    if matrix is None:
        return None
    try:
        return Camera.from_matrix(matrix, width, height)
    except (ValueError, TypeError, OverflowError) as error:
        raise FolderError(f"{where}: invalid camera: {error}") from None


def _provenance(row: Row, where: str) -> Provenance:
    """The provenance of a sample. A row with only `"real": false` is rendered; without either entry, real."""
    stated = row.get("provenance") or {}
    kind = stated.get("origin") or ("real" if row.get("real", True) else "rendered")
    try:
        return Provenance(kind, tuple(stated.get("parents") or ()), stated.get("generator") or {})
    except ValueError as error:
        raise FolderError(f"{where}: {error}") from None


def _crop(stated: Any, height: int, width: int, where: str) -> tuple[int, int, int, int]:
    """The crop window (left, top, width, height) of a row or header, for an image of this size."""
    if stated is None:
        return 0, 0, width, height
    if stated == "kitti-benchmark":
        window = (int((width - _KITTI[0]) / 2), height - _KITTI[1], *_KITTI)
    elif isinstance(stated, list) and len(stated) == 4 and all(isinstance(n, int) for n in stated):
        window = (stated[0], stated[1], stated[2], stated[3])
    else:
        raise FolderError(
            f"{where}: a crop is [left, top, width, height] or 'kitti-benchmark', not {stated!r}"
        )
    if min(window[:2]) < 0 or window[0] + window[2] > width or window[1] + window[3] > height:
        raise FolderError(f"{where}: the image is {height}x{width}, and the window {list(window)} exceeds it")
    return window


def _resize_to_square(parts: dict[str, tuple[Tensor, ...]], edge: int) -> dict[str, tuple[Tensor, ...]]:
    """Resize targets and masks to a square; ids by the nearest pixel."""
    out: dict[str, tuple[Tensor, ...]] = {}
    for name, (target, valid) in parts.items():
        moved, known = map_resized_to_square(target.double(), valid, edge)
        if not target_spec(name).is_interpolable:
            moved, known = (
                interpolate(x[None].float(), (edge, edge), mode="nearest")[0] for x in (target, valid)
            )
        out[name] = (torch.where(known.bool(), moved, 0).to(target.dtype), known.bool())
    return out


def _slice(x: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    return x[..., top : top + height, left : left + width]
