"""Packing of a data folder into tar files of a few hundred megabytes, for file systems with slow small files.

    shard-00000.tar   00000000.image.jpg, 00000000.depth.png, 00000000.json (the row), 00000001.image.jpg, ...
    metadata.jsonl    the rows, with paths such as shard-00000.tar::00000000.depth.png
    dataset.json      the header

Files are stored unchanged. For webdataset a sample's key is the part of a name before its *first* dot; so the key is
the sample's number, not its id, which may contain dots. Access is random: `Shards(out)[i]` seeks to its members without
unpacking. The same folder gives identical bytes on any machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from twofold.data.folder import Folder
from twofold.data.layout import (
    HEADER,
    MANIFESTS,
    MEMBER,
    FolderError,
    Row,
    check_relative,
    read_header,
    resolve_path,
    row_paths,
    to_json,
    write_text,
)
from twofold.image.stored import Stored, find_stored, tidy
from twofold.io import atomic_write, remove_leftovers
from twofold.io.atomic import is_temporary

SHARD = 512 * 2**20
# Maximal size of a member; the tar format allows 8 GB.
MAX_BYTES = 2 * 2**30
# Maximal bytes of a member's name in a ustar header.
_MAX_MEMBER = 100
_BLOCK, _RECORD = 512, 20 * 512
_SLOT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Packed:
    """One shard: its file, its numbers of samples and bytes, and whether it existed already."""

    path: Path
    samples: int
    size: int
    kept: bool


@dataclass(frozen=True)
class _PlannedSample:
    """One sample of the plan: its members (name, source), and its row with the new paths."""

    members: tuple[tuple[str, Stored], ...]
    row: Row

    @property
    def last(self) -> tuple[str, bytes]:
        """The member that holds the row."""
        key = self.row["file_name"].split(MEMBER)[1].partition(".")[0]
        return f"{key}.json", (to_json(self.row, f"the row of {self.row['id']}") + "\n").encode()

    @property
    def size(self) -> int:
        """Bytes of the members with their headers."""
        return sum(_padded(s) for s in (*(m.size for _, m in self.members), len(self.last[1])))


def pack(folder: Folder, out: str | os.PathLike[str], shard_size: int = SHARD) -> Iterator[Packed]:
    """Write the samples of `folder`, in order, to tar shards of at most `shard_size` bytes in `out`.

    A generator of one record per shard. Shards are written atomically, and the manifest last; after a kill the same
    call continues. A sample larger than `shard_size` gets its own shard. An image of several rows (one per person in
    COCO) is stored once per row.

    FolderError when `out` holds other files, was begun from other samples or with another size, or a file is missing or
    larger than `MAX_BYTES`.
    """
    if shard_size < _RECORD:
        raise FolderError(f"the shard size is {shard_size} bytes; expected at least {_RECORD}")
    target = Path(os.path.realpath(out))
    if target == folder.root or target == folder.files:
        raise FolderError(f"{out} is the folder itself; choose another for the shards")
    shards = _plan(folder, shard_size)
    if not shards:
        raise FolderError(f"{folder.root} has no samples to pack")
    header = _header(folder, shards, shard_size)
    _start(target, header)
    for number, pieces in enumerate(shards):
        yield _write(target / _shard_name(number), pieces)
    lines = [
        to_json(piece.row, f"the row of {piece.row['id']}") + "\n" for pieces in shards for piece in pieces
    ]
    write_text(target / MANIFESTS[0], "".join(lines))


class Shards(Folder):
    """A packed folder with random access. Its tars are checked first: see `check_shard`.

    FolderError for a shard that is missing or unsafe, or a row whose member is missing.
    """

    def __init__(self, root: str | os.PathLike[str], targets: Sequence[str] | None = None) -> None:
        super().__init__(root, targets)
        found: dict[str, set[str]] = {}
        for row in self.rows:
            where = f"{self.root.name}, sample {row['id']!r}"
            for path in row_paths(row):
                shard, mark, member = path.partition(MEMBER)
                if not mark:
                    raise FolderError(f"{where}: {path!r} is not in a shard; read this folder with Folder")
                if shard not in found:
                    found[shard] = check_shard(resolve_path(self.files, shard, where))
                if member not in found[shard]:
                    raise FolderError(f"{where}: {shard} has no {member!r}; pack the folder again")


def check_shard(path: str | os.PathLike[str]) -> set[str]:
    """The names of a shard's members; FolderError for an unsafe shard.

    Unsafe are compressed or truncated tars, members other than regular files (links, devices, folders), names that are
    absolute, contain "..", are not normalized or occur twice, and members larger than `MAX_BYTES`.
    """
    names: set[str] = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                where = f"{path}: {member.name!r}"
                if not member.isreg() or member.issparse():
                    raise FolderError(f"{where} is not a regular file; a shard may contain only those")
                check_relative(member.name, str(path))
                if tidy(member.name) != member.name or MEMBER in member.name:
                    raise FolderError(f"{where} is not a normalized file name")
                if member.name in names:
                    raise FolderError(f"{where} occurs twice; pack the folder again")
                if member.size > MAX_BYTES:
                    raise FolderError(f"{where} has {member.size} bytes; a member has at most {MAX_BYTES}")
                if member.offset_data + member.size > os.path.getsize(path):
                    raise FolderError(f"{where} is truncated; download the shard again")
                names.add(member.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        detail = " ".join(str(error).split())[:80]
        raise FolderError(
            f"{path} is not a complete, uncompressed tar ({detail}); download it again"
        ) from None
    return names


def _plan(folder: Folder, shard_size: int) -> list[list[_PlannedSample]]:
    """The samples of each shard, from the sizes of their files, which are not opened."""
    shards: list[list[_PlannedSample]] = []
    filled = 0
    for number, row in enumerate(folder.rows):
        piece = _plan_sample(folder, row, number, max(0, len(shards) - 1))
        if not shards or _tar_size(filled + piece.size) > shard_size:
            shards.append([])
            piece, filled = _plan_sample(folder, row, number, len(shards) - 1), 0
        shards[-1].append(piece)
        filled += piece.size
    return shards


def _plan_sample(folder: Folder, row: Row, number: int, shard: int) -> _PlannedSample:
    where, key = f"{folder.root.name}, sample {row['id']!r}", f"{number:08d}"
    members: dict[str, Stored] = {}

    def moved(path: str, slot: str) -> str:
        resolve_path(folder.files, path, where)
        stored = find_stored(folder.files / path)
        if stored.size > MAX_BYTES:
            raise FolderError(f"{where}: {path} has {stored.size} bytes; a member has at most {MAX_BYTES}")
        name = f"{key}.{slot}{posixpath.splitext(path)[1].lower()}"
        if len(name.encode()) > _MAX_MEMBER:
            raise FolderError(
                f"{where}: the name {name!r} is too long for a tar; shorten the target or the suffix"
            )
        members[name] = stored
        return f"{_shard_name(shard)}{MEMBER}{name}"

    new = copy.deepcopy(row)
    new["file_name"] = moved(row["file_name"], "image")
    for slot, part in {"about": new.get("image") or {}, **(new.get("targets") or {})}.items():
        if not _SLOT.fullmatch(slot) or slot in ("image", "json"):
            raise FolderError(
                f"{where}: the target name {slot!r} cannot be packed; use letters, digits, _ and -"
            )
        _move(part, slot, moved)
    left = [path for path in row_paths(new) if not str(path).startswith(f"{_shard_name(shard)}{MEMBER}")]
    if left:
        raise FolderError(f"{where}: the path {left[0]!r} is not in an entry that is packed; fix the row")
    return _PlannedSample(tuple(members.items()), new)


def _move(part: dict[str, Any], slot: str, moved: Any) -> None:
    """Replace each `path` in a part of a row, at any depth (masks have paths too)."""
    if "index" in part:
        # Packing would copy the whole stack for every sample.
        raise FolderError(
            f"{slot} is one map of a stack; write its samples with FolderWriter, then pack them"
        )
    for key, value in part.items():
        if isinstance(value, dict):
            _move(value, f"{slot}.{key}", moved)
        elif key == "path":
            part[key] = moved(value, slot)


def _header(folder: Folder, shards: list[list[_PlannedSample]], shard_size: int) -> Row:
    """The header of the packed folder; its plan is a hash of the samples and sizes."""
    count = sum(map(len, shards))
    kept = {k: v for k, v in folder.header.items() if k not in ("root", "count", "packed")}
    plan = hashlib.sha256(json.dumps([kept, shard_size], sort_keys=True).encode())
    for pieces in shards:
        for piece in pieces:
            sizes = [(name, stored.size) for name, stored in piece.members]
            plan.update(json.dumps([piece.row, sizes], sort_keys=True).encode())
    packed = {"shards": len(shards), "shard_size": shard_size, "plan": plan.hexdigest()}
    return {**kept, "packed": packed, "count": count}


def _start(target: Path, header: Row) -> None:
    """Create the folder and write the header; FolderError when it holds other files."""
    if (target / HEADER).exists():
        if read_header(target) != header:
            raise FolderError(
                f"{target} was begun from other samples or with another size; choose a new folder"
            )
    elif target.exists() and not all(is_temporary(name) for name in os.listdir(target)):
        raise FolderError(f"{target} holds other files; choose a new folder")
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    write_text(target / HEADER, to_json(header, "the header", indent=1) + "\n")


def _write(path: Path, pieces: list[_PlannedSample]) -> Packed:
    """Write one shard, unless it exists with the planned size and is not older than any of its files."""
    size = _tar_size(sum(piece.size for piece in pieces))
    changed = max(stored.path.stat().st_mtime_ns for piece in pieces for _, stored in piece.members)
    if path.is_file() and path.stat().st_size == size and path.stat().st_mtime_ns >= changed:
        return Packed(path, len(pieces), size, True)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        for piece in pieces:
            for name, stored in piece.members:
                _append(file, name, stored.read(), stored.size)
            name, row = piece.last
            _append(file, name, row, len(row))
        file.write(bytes(size - file.tell()))
    return Packed(path, len(pieces), size, False)


def _append(file: BinaryIO, name: str, data: bytes, size: int) -> None:
    """Append one member in POSIX ustar format, without owner and date; FolderError when its size has changed."""
    if len(data) != size:
        raise FolderError(f"{name} changed from {size} to {len(data)} bytes while it was packed; try again")
    item = tarfile.TarInfo(name)
    item.size, item.mode = len(data), 0o644
    file.write(item.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % _BLOCK))


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _padded(size: int) -> int:
    return _BLOCK + size + -size % _BLOCK


def _tar_size(size: int) -> int:
    """Size of a tar with ``size`` bytes of members: two empty blocks follow, and the last record is padded."""
    return size + 2 * _BLOCK + -(size + 2 * _BLOCK) % _RECORD
