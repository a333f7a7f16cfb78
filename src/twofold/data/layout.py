"""The layout on disk, and its validation.

    dataset.json      the header: schema, name, licence, count, and a descriptor for each target
    metadata.jsonl    one row a sample: id, file_name, text, size, targets, camera, provenance
    .rows/ID.json     rows of a writer that has not finished

The files lie in the folder itself, or below the header's `root`, an absolute path, where they are only read.
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
# The second name is that of folders made before the library had one.
SCHEMAS = (SCHEMA, "dp-manifest/1")
HEADER = "dataset.json"
MANIFESTS = ("metadata.jsonl", "manifest.jsonl")
PENDING = ".rows"
INLINE = ("points", "people")  # what a target has in place of a path; see `points`

Row = dict[str, Any]
# Of a path in a manifest, with its member; what is longer no system opens.
_MAX_PATH = 2048
# Of an id, in characters; a path may be one.
_MAX_ID = 2048


class FolderError(ValueError):
    """A data folder that cannot be used. One line: the file, what is wrong, and how to fix it."""


def read_header(root: Path) -> dict[str, Any]:
    """The header of a folder; {} when it has none."""
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
        raise FolderError(f"{path}: 'targets' must give a descriptor (an object) for each name")
    for name, how in [*targets.items(), ("image", header.get("image") or {})]:
        _check(how, f"{path}: {name!r} of its targets" if name != "image" else f"{path}: 'image'")
    return header


def _check(how: Any, where: str) -> None:
    try:
        check_descriptor(how, where)
    except ValueError as error:
        raise FolderError(str(error)) from None


def files_root(root: Path, header: dict[str, Any]) -> Path:
    """Where the files of the folder `root` lie, links resolved: there, or below an absolute path it names."""
    stated = header.get("root", ".")
    if stated == ".":
        return Path(os.path.realpath(root))
    if not isinstance(stated, str) or not stated.isprintable() or not os.path.isabs(stated):
        raise FolderError(f"{root / HEADER}: its root {stated!r} must be '.' or an absolute path")
    if ".." in Path(stated).parts or len(Path(stated).parts) < 2:
        raise FolderError(f"{root / HEADER}: its root {stated!r} must be the plain path of one folder")
    return Path(os.path.realpath(stated))


def read_rows(root: Path) -> list[Row]:
    """The checked rows of a folder's manifest, in its order; FolderError for the first one that is wrong."""
    path = next((root / name for name in MANIFESTS if (root / name).is_file()), None)
    if path is None:
        if (root / PENDING).is_dir():
            raise FolderError(f"{root} is unfinished: its writer has not merged the rows; finish it first")
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
    """The rows that a writer has not merged yet, by their files."""
    # A name that starts with a dot is what a killed process was writing.
    paths = sorted(p for p in (root / PENDING).rglob("*.json") if not p.name.startswith("."))
    return {path: check_row(_parse(path.read_bytes(), str(path)), str(path)) for path in paths}


def check_row(row: Row, where: str) -> Row:
    """The row with its id filled in (the file's name when it has none); FolderError naming what is wrong."""
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
    """FolderError unless the entries of a row's provenance have the right types; all are optional."""
    parents, generator = stated.get("parents") or [], stated.get("generator") or {}
    if not isinstance(stated.get("origin") or "real", str):
        raise FolderError(f"{where}: 'origin' must be text, not {io.quoted(stated['origin'])}")
    if not isinstance(parents, list) or not all(isinstance(id, str) for id in parents):
        raise FolderError(f"{where}: 'parents' must be a list of ids, not {io.quoted(parents)}")
    if not isinstance(generator, dict):
        raise FolderError(f"{where}: 'generator' must be an object, not {io.quoted(generator)}")


def row_paths(row: Row) -> Iterator[Any]:
    """Every path that a row names: of its image, of its targets, of the masks that belong to them."""
    yield row["file_name"]
    for part in (row.get("image") or {}, *(row.get("targets") or {}).values()):
        if "path" in part:
            yield part["path"]
        for mask in (part.get("masks") or {}).values():
            yield mask.get("path")


def check_relative(path: Any, where: str) -> None:
    """FolderError unless `path` is text that names something below the folder, or a member of a tar there."""
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
    """The file `path` of the folder `root` (resolved before); FolderError when missing or linked away.

    Of a member of a tar, `x.tar::member`; whether the tar has it is found out when it is read.
    """
    file = root / path.split(MEMBER, 1)[0]
    real = os.path.realpath(file)
    if not real.startswith(str(root).rstrip(os.sep) + os.sep):
        raise FolderError(f"{where}: {path!r} is a link out of the folder; copy the file into it")
    if not Path(real).is_file():
        raise FolderError(f"{where}: {escape(file)} does not exist; restore it, or drop the row")
    return root / path


def write_text(path: Path, text: str) -> None:
    """Text to a file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, where: str, indent: int | None = None) -> str:
    """JSON that any reader takes (no NaN); FolderError when `value` holds something else."""
    try:
        return io.to_json(value, indent)
    except (TypeError, ValueError) as error:
        raise FolderError(f"{where} is not plain JSON: {error}") from None


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        return io.parse_object(text, where)
    except io.FormatError as error:
        raise FolderError(f"{error}; fix that line, or write the folder again") from None
