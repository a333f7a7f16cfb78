"""Layout of a data folder, and its validation.

    dataset.json      the header: schema, name, licence, count, and a descriptor for each target
    metadata.jsonl    one row per sample: id, file_name, text, size, targets, camera, provenance
    .rows/ID.json     rows of a writer that has not finished

Paths are relative to the folder, or to the header's `root`, an absolute path of a folder that is only read.
A path may name a member of a tar file: `x.tar::./a/b.png`.

Manifests are untrusted: their paths must stay inside the root, and their rows are validated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twofold import io
from twofold.data.descriptors import check_descriptor
from twofold.image.stored import MEMBER
from twofold.io import atomic_write, escape
from twofold.io.names import MAX_NAME_BYTES

SCHEMA = "twofold-data/1"
# The second is that of folders from before the first release.
SCHEMAS = (SCHEMA, "dp-manifest/1")
HEADER = "dataset.json"
MANIFESTS = ("metadata.jsonl", "manifest.jsonl")
PENDING = ".rows"
INLINE = ("points", "people")  # entries that inline targets have instead of a path; see `points`

Row = dict[str, Any]
# Maximal bytes of a path in a manifest, including the member.
_MAX_PATH = 2048
# Maximal characters of an id, which may be a path.
_MAX_ID = 2048


class FolderError(ValueError):
    """A data folder cannot be used. The message is one line: the file, the problem, and how to fix it."""


def read_header(root: Path) -> dict[str, Any]:
    """Read and check the header of a folder; {} when it has none."""
    path = root / HEADER
    if not path.exists():
        return {}
    header = _parse(path.read_bytes(), str(path))
    if header.get("schema", SCHEMA) not in list(SCHEMAS):
        raise FolderError(
            f"{path} has the schema {io.quoted(header['schema'])}; this version reads {SCHEMA!r}"
        )
    files_root(root, header)
    targets = header.get("targets", {})
    if not isinstance(targets, dict):
        raise FolderError(f"{path}: 'targets' must be an object with a descriptor (an object) for each name")
    for name, how in [*targets.items(), ("image", header.get("image") or {})]:
        _check(how, f"{path}: {name!r} of its targets" if name != "image" else f"{path}: 'image'")
    return header


def _check(how: Any, where: str) -> None:
    try:
        check_descriptor(how, where)
    except ValueError as error:
        raise FolderError(str(error)) from None


def files_root(root: Path, header: dict[str, Any]) -> Path:
    """The folder of the files, with links resolved: `root`, or the absolute path in the header."""
    stated = header.get("root", ".")
    if stated == ".":
        return Path(os.path.realpath(root))
    if not isinstance(stated, str) or not stated.isprintable() or not os.path.isabs(stated):
        raise FolderError(f"{root / HEADER}: its root {stated!r} must be '.' or an absolute path")
    if ".." in Path(stated).parts or len(Path(stated).parts) < 2:
        raise FolderError(f"{root / HEADER}: its root {stated!r} must be the path of a folder without '..'")
    return Path(os.path.realpath(stated))


def read_rows(root: Path) -> list[Row]:
    """Read and check the rows of a folder's manifest, in order; FolderError for the first invalid one."""
    path = next((root / name for name in MANIFESTS if (root / name).is_file()), None)
    if path is None:
        if (root / PENDING).is_dir():
            raise FolderError(
                f"{root} is unfinished: its rows have not been merged; run its writer again first"
            )
        raise FolderError(f"{root} is not a data folder: it has no {MANIFESTS[0]}; check the path")
    rows: dict[str, Row] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            row = check_row(_parse(line, f"{path}:{number}"), f"{path}:{number}")
            if row["id"] in rows:
                raise FolderError(
                    f"{path}:{number} repeats the id {io.quoted(row['id'])}; ids must be unique"
                )
            rows[row["id"]] = row
    return list(rows.values())


def read_pending(root: Path) -> dict[Path, Row]:
    """The rows that have not been merged yet, by file."""
    # Names with a leading dot are temporary files of killed processes.
    paths = sorted(p for p in (root / PENDING).rglob("*.json") if not p.name.startswith("."))
    return {path: check_row(_parse(path.read_bytes(), str(path)), str(path)) for path in paths}


def check_row(row: Row, where: str) -> Row:
    """Check a row and add an id (the file's name) if it has none; FolderError for the first invalid entry."""
    row = {"id": row.get("file_name"), **row}
    for key in ("id", "file_name"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise FolderError(f"{where} has no {key!r}")
    if len(str(row["id"])) > _MAX_ID:
        raise FolderError(f"{where}: its id has over {_MAX_ID} characters; shorten it")
    targets = row.get("targets") or {}
    if not isinstance(targets, dict):
        raise FolderError(f"{where}: 'targets' must be an object of names, not {type(targets).__name__}")
    check_relative(row["file_name"], where)
    for name, target in targets.items():
        if not isinstance(target, dict) or not any(key in target for key in ("path", *INLINE)):
            raise FolderError(f"{where}: the target {name!r} has no 'path'")
    for key in ("camera", "provenance", "image"):
        if not isinstance(row.get(key), dict | None):
            raise FolderError(f"{where}: {key!r} must be an object, not {io.quoted(row[key])}")
    _check_origin(row.get("provenance") or {}, where)
    size = row.get("size")
    whole = isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    if size is not None and not whole:
        raise FolderError(f"{where}: 'size' must be [height, width], not {io.quoted(size)}")
    for name, part in [*targets.items(), ("image", row.get("image") or {})]:
        _check(part, f"{where}, {name!r}")
    for path in row_paths(row):
        check_relative(path, where)
    return row


def _check_origin(stated: dict[str, Any], where: str) -> None:
    """FolderError unless the entries of a row's provenance, all optional, have the expected types."""
    parents, generator = stated.get("parents") or [], stated.get("generator") or {}
    if not isinstance(stated.get("origin") or "real", str):
        raise FolderError(f"{where}: 'origin' must be text, not {io.quoted(stated['origin'])}")
    if not isinstance(parents, list) or not all(isinstance(id, str) for id in parents):
        raise FolderError(f"{where}: 'parents' must be a list of ids, not {io.quoted(parents)}")
    if not isinstance(generator, dict):
        raise FolderError(f"{where}: 'generator' must be an object, not {io.quoted(generator)}")


def row_paths(row: Row) -> Iterator[Any]:
    """All paths in a row: of its image, its targets and their masks."""
    yield row["file_name"]
    for part in (row.get("image") or {}, *(row.get("targets") or {}).values()):
        if "path" in part:
            yield part["path"]
        for mask in (part.get("masks") or {}).values():
            yield mask.get("path")


def check_relative(path: Any, where: str) -> None:
    """FolderError unless `path` is a relative path below the folder, or of a member of a tar there."""
    if not isinstance(path, str) or not path.isprintable() or not path:
        raise FolderError(f"{where}: {io.quoted(path)} is not a path")
    if len(path.encode()) > _MAX_PATH or max(len(step.encode()) for step in path.split("/")) > MAX_NAME_BYTES:
        raise FolderError(f"{where}: a path of {len(path)} characters is too long; rename the file")
    for part in path.split(MEMBER, 1):
        steps = part.split("/")
        if not part or part.startswith("/") or "\\" in part or ":" in steps[0] or ".." in steps:
            raise FolderError(
                f"{where}: {io.quoted(path)} leaves the folder; paths are relative to it, without '..'"
            )


def resolve_path(root: Path, path: str, where: str) -> Path:
    """The file `path` of the folder `root` (already resolved); FolderError when it is missing or links elsewhere.

    For a member of a tar, `x.tar::member`, only the tar is checked.
    """
    file = root / path.split(MEMBER, 1)[0]
    real = os.path.realpath(file)
    if not real.startswith(str(root).rstrip(os.sep) + os.sep):
        raise FolderError(f"{where}: {path!r} is a link out of the folder; copy the file into it")
    if not Path(real).is_file():
        raise FolderError(f"{where}: {escape(file)} does not exist; restore it, or drop the row")
    return root / path


def write_text(path: Path, text: str) -> None:
    """Write text to a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, where: str, indent: int | None = None) -> str:
    """Standard JSON (without NaN) of `value`; FolderError when it cannot be represented."""
    try:
        return io.to_json(value, indent)
    except (TypeError, ValueError) as error:
        raise FolderError(f"{where} is not plain JSON: {error}") from None


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        return io.parse_object(text, where)
    except io.FormatError as error:
        raise FolderError(f"{error}; fix that line, or write the folder again") from None
