"""Reading a data folder: `Folder(root)[i]` is a Sample, whoever wrote it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twofold.data.codecs import Descriptor, decode, stored_vectors
from twofold.data.layout import (
    FolderError,
    Row,
    files_root,
    inside,
    read_header,
    read_pending,
    read_rows,
)
from twofold.data.points import drawn, is_inline
from twofold.data.writer import FolderWriter
from twofold.geometry import Camera, convert_frame
from twofold.image import read_image, read_map
from twofold.sample import UNITS, Origin, Sample

__all__ = ["Folder", "FolderError", "FolderWriter", "Report", "validate"]


class Folder:
    """The samples of a data folder, in the order of its manifest; fit for a `torch.utils.data.DataLoader`.

    ids     the id of each sample
    rows    what the manifest says of each
    header  what `dataset.json` says of all; {} when there is none
    files   where the paths of the rows begin: the folder itself, or the header's `root`

    Files are opened when a sample is asked for, and only then. FolderError names the file that is wrong.
    """

    def __init__(self, root: str | os.PathLike[str], targets: Sequence[str] | None = None) -> None:
        """targets: the names of those to read; by default every one a row has. A row may lack some."""
        if not Path(root).is_dir():
            raise FolderError(f"{root} is not a folder; check the path")
        # Resolved once, so that each file can be held against it.
        self.root = Path(os.path.realpath(root))
        self.header: dict[str, Any] = read_header(self.root)
        self.files = files_root(self.root, self.header)
        if not self.files.is_dir():
            raise FolderError(
                f"{self.root} has its files in {self.files}, which is not there; convert it again"
            )
        self.rows: tuple[Row, ...] = tuple(read_rows(self.root))
        self.targets = None if targets is None else tuple(targets)
        there = {name for row in self.rows for name in row.get("targets") or {}}
        for name in self.targets or ():
            if name not in there and name not in UNITS:
                raise FolderError(f"no sample of {self.root} has {name!r}; there are {sorted(there)}")

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each sample, in order."""
        return tuple(row["id"] for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """One sample, in the library's units and frames (`sample.UNITS`)."""
        row = self.rows[index]
        where = f"{self.root.name}, sample {row['id']!r}"
        image = read_image(inside(self.files, row["file_name"], where))
        height, width = image.shape[-2:]
        if row.get("size") not in (None, [height, width]):
            raise FolderError(
                f"{where}: the image is {height}x{width}, its row says {row['size']}; mend the row"
            )
        camera = _camera(row, width, height, where)
        image, cut, read = self._drawn(row, image, where)
        read |= {n: self._target(row, n, camera, where) for n in self._names(row) if n not in read}
        height, width = image.shape[-2:]
        for name, (target, _) in read.items():
            if target.shape[-2:] != image.shape[-2:]:
                found = "x".join(str(n) for n in target.shape[-2:])
                raise FolderError(
                    f"{where}: {name} is {found}, the image {height}x{width}; make them one size"
                )
        return Sample(
            image=image,
            targets={name: target for name, (target, _) in read.items()},
            valid={name: valid for name, (_, valid) in read.items()},
            caption=_caption(row),
            id=row["id"],
            camera=None if cut else camera,
            origin=_origin(row, where),
        )

    def _names(self, row: Row) -> list[str]:
        return [n for n in row.get("targets") or {} if self.targets is None or n in self.targets]

    def descriptor(self, row: Row, name: str) -> Descriptor:
        """How the target `name` of a row is stored: the header's descriptor under the row's own entries."""
        return {**self.header.get("targets", {}).get(name, {}), **row["targets"][name]}

    def _drawn(
        self, row: Row, image: Tensor, where: str
    ) -> tuple[Tensor, bool, dict[str, tuple[Tensor, Tensor]]]:
        """The picture, whether it was cut to a part, and the targets that the row holds as numbers."""
        inline = [n for n in self._names(row) if is_inline(row["targets"][n])]
        try:
            found, cut, read = drawn(image, {n: self.descriptor(row, n) for n in inline})
        except ValueError as error:
            raise FolderError(f"{where}: {error}") from None
        others = [n for n in self._names(row) if n not in read]
        if cut and others:
            raise FolderError(
                f"{where}: {inline[0]} cuts the picture to a box, {others[0]} is of the whole of it; "
                f"ask for one of them: Folder(root, targets=({inline[0]!r},))"
            )
        return found, cut, read

    def _target(self, row: Row, name: str, camera: Camera | None, where: str) -> tuple[Tensor, Tensor]:
        path = inside(self.files, row["targets"][name]["path"], where)
        raw = read_map(path)
        try:
            return decode(name, raw, self.descriptor(row, name), camera)
        except (ValueError, TypeError) as error:
            raise FolderError(f"{path}: {error}") from None

    def select(self, ids: Iterable[str]) -> Folder:
        """The same folder with these samples only, in this order. FolderError for an id it does not have."""
        by_id = {row["id"]: row for row in self.rows}
        chosen = list(ids)
        missing = [id for id in chosen if id not in by_id]
        if missing:
            raise FolderError(
                f"{self.root} has no sample {missing[0]!r} ({len(missing)} of the ids are not there)"
            )
        part = copy.copy(self)
        part.rows = tuple(by_id[id] for id in chosen)
        return part


def _caption(row: Row) -> str:
    """The text of a row; ImageFolder calls it `text`, others `caption`."""
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
    except (ValueError, TypeError) as error:
        raise FolderError(f"{where}: its camera is wrong: {error}") from None


def _origin(row: Row, where: str) -> Origin:
    """Who made the sample. A row with only `"real": false` is a rendering; one that says nothing, real."""
    said = row.get("provenance") or {}
    kind = said.get("origin") or ("real" if row.get("real", True) else "rendered")
    try:
        return Origin(kind, tuple(said.get("parents") or ()), said.get("generator") or {})
    except ValueError as error:
        raise FolderError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Report:
    """What `validate` found: `problems`, one line each, and per target its number and extent."""

    root: str
    count: int
    problems: tuple[str, ...]
    targets: dict[str, dict[str, float]]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.root}: {self.count} samples, {len(self.problems) or 'no'} problems"]
        for name, facts in sorted(self.targets.items()):
            said = ", ".join(f"{key} {value:.4g}" for key, value in facts.items())
            lines.append(f"  {name}: {said}")
        return "\n".join([*lines, *(f"  ! {problem}" for problem in self.problems)])


def validate(root: str | os.PathLike[str]) -> Report:
    """Reads every file of a folder and reports all that is wrong, instead of stopping at the first.

    Beyond what reading checks (files there, whole and of one size, ids unique): the count of the header, that
    each target has a valid pixel, that stored normals have length 1 (within 0.02) and face the camera on
    90 % of their pixels (or else the frame is wrong), and that no row waits to be merged.
    """
    try:
        folder = Folder(root)
        waiting = len(read_pending(folder.root))
    except FolderError as error:
        return Report(str(root), 0, (str(error),), {})
    problems = [f"{waiting} rows wait to be merged; finish the writer"] if waiting else []
    count = folder.header.get("count")
    if count not in (None, len(folder)):
        problems.append(f"the header counts {count} samples, the manifest has {len(folder)}")
    facts: dict[str, list[dict[str, float]]] = {}
    for index, row in enumerate(folder.rows):
        try:
            sample = folder[index]
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        for name, target in sample.targets.items():
            facts.setdefault(name, []).append(_extent(target, sample.valid[name]))
            problems += [f"{row['id']}: {what}" for what in _doubts(folder, row, name, sample)]
    return Report(str(root), len(folder), tuple(problems), {n: _merge(f) for n, f in facts.items()})


def _extent(target: Tensor, valid: Tensor) -> dict[str, float]:
    values = target[valid.expand_as(target)]
    low, high = (float(values.min()), float(values.max())) if values.numel() else (float("nan"),) * 2
    return {"valid": float(valid.float().mean()), "least": low, "most": high}


def _merge(extents: list[dict[str, float]]) -> dict[str, float]:
    """The extents of many samples as one, with their number; `valid` is the mean share of valid pixels."""
    table = torch.tensor([list(e.values()) for e in extents], dtype=torch.float64)
    known = table[~table[:, 1].isnan()]
    least, most = (float(known[:, 1].min()), float(known[:, 2].max())) if len(known) else (float("nan"),) * 2
    return {"samples": len(extents), "valid": float(table[:, 0].mean()), "least": least, "most": most}


def _facing(normals: Tensor, camera: object) -> Tensor:
    """Where normals (3 h w, RUB) face the camera, bool 1 h w: against the pixel's ray, or the axis if unknown."""
    if not isinstance(camera, Camera):
        return normals[2:3] > 0
    rays = convert_frame(camera.rays(), "RDF", "RUB")
    return (normals * rays.to(normals)).sum(0, keepdim=True) < 0


def _doubts(folder: Folder, row: Row, name: str, sample: Sample) -> list[str]:
    """What is odd about one target of a sample that could be read."""
    target, valid = sample.targets[name], sample.valid[name]
    if not bool(valid.any()):
        return [] if bool(target.isinf().any()) else [f"{name} has no valid pixel"]
    if name != "normals":
        return []
    stored = stored_vectors(
        read_map(folder.files / row["targets"][name]["path"]), folder.descriptor(row, name)
    )
    length = torch.linalg.vector_norm(stored, dim=0, keepdim=True)[valid]
    doubts = []
    if bool(((length - 1).abs() > 0.02).any()):
        doubts.append(
            f"normals have lengths from {float(length.min()):.3g} to {float(length.max()):.3g}, not 1"
        )
    toward = float(_facing(target, sample.camera)[valid].float().mean())
    if toward <= 0.9:
        doubts.append(
            f"only {toward:.0%} of the normals face the camera; is the 'frame' of the header right?"
        )
    return doubts
