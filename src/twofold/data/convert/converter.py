"""Converters write the manifest of a data folder for a public data set, without moving its files.

A converter implements the folders, encodings, lists and pitfalls of one data set and yields a row for each image, with
the paths of its targets. `convert` writes a data folder of two small files, whose header's `root` is the original
folder. Nothing is downloaded, copied or changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from twofold.data.layout import (
    HEADER,
    MANIFESTS,
    SCHEMA,
    FolderError,
    Row,
    check_row,
    files_root,
    read_header,
    resolve_path,
    row_paths,
    to_json,
    write_text,
)
from twofold.data.writer import FolderWriter
from twofold.sample import Sample


@dataclass(frozen=True)
class Converter:
    """Conversion of one public data set, in one layout on disk, to a data folder.

    name     name on the command line: "hypersim", "nyuv2-marigold"
    title    name of the data set and of this layout
    licence  licence, marked if it was not verified
    access   how to get the files: a page, a form, an e-mail
    splits   splits that `rows` supports
    targets  a descriptor (see `data.codecs`) for each target name; a row's entries override it
    rows     (root, split) -> rows, with paths relative to that root; raises FolderError with the file for an
             unexpected tree
    samples  instead of `rows`, for data that have to be computed (foregrounds composited over backgrounds):
             (root, split) -> samples, which are written to `out`
    notes    pitfalls for users
    header   more entries of `dataset.json`: classes, palette, protocol, image (the images' descriptor)
    version  incremented when the rows or descriptors change
    """

    name: str
    title: str
    licence: str
    access: str
    splits: tuple[str, ...]
    targets: Mapping[str, dict[str, Any]]
    rows: Callable[[Path, str], Iterator[Row]] | None = None
    samples: Callable[[Path, str], Iterator[Sample]] | None = None
    notes: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.samples is None):
            raise ValueError(f"the converter {self.name!r} must define either rows or samples")


def convert(
    converter: Converter,
    source: str | os.PathLike[str],
    split: str,
    out: str | os.PathLike[str],
    limit: int = 0,
) -> Path:
    """Write a data folder `out` for one split of the data set in `source`, and return its path.

    `limit` > 0 converts only the first images. Files of the rows must exist, but are not opened. The same call again
    rewrites the folder; other data folders are not overwritten. FolderError, with the file, for an unexpected tree, an
    unknown split, no images, or an `out` within `source`.
    """
    root, target = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if not root.is_dir():
        raise FolderError(f"{source} is not a folder; pass the one that holds {converter.title}")
    if split not in converter.splits:
        raise FolderError(f"{converter.name} has no split {split!r}; it has {', '.join(converter.splits)}")
    if target == root or root in target.parents:
        raise FolderError(f"{out} lies within {source}, which is not changed; choose a folder elsewhere")
    header = _header(converter, root, split)
    files_root(target, header)
    _check_overwrite(target, header)
    if converter.samples is not None:
        return _write_samples(target, header, converter.samples(root, split), limit)
    rows = _checked_rows(converter, root, split, limit)
    target.mkdir(parents=True, exist_ok=True)
    # The header first: it identifies the folder when the process is killed before the rows are written.
    write_text(target / HEADER, to_json({**header, "count": len(rows)}, "the header", indent=1) + "\n")
    lines = [to_json(row, f"the row of {row['id']}") + "\n" for row in rows]
    write_text(target / MANIFESTS[0], "".join(lines))
    return target


def _header(converter: Converter, root: Path, split: str) -> Row:
    here = {"root": str(root)} if converter.samples is None else {"source": str(root)}
    values = {"name": converter.name, "title": converter.title, "split": split, "licence": converter.licence}
    by = {"name": converter.name, "version": converter.version}
    return {
        "schema": SCHEMA,
        **values,
        "access": converter.access,
        "converter": by,
        **here,
        **converter.header,
        "notes": converter.notes,
        "targets": {name: dict(how) for name, how in converter.targets.items()},
    }


def _check_overwrite(out: Path, header: Row) -> None:
    """FolderError when `out` is a data folder of another converter, tree or split."""
    found = read_header(out) if (out / HEADER).exists() else {}
    if not found and not any((out / name).exists() for name in MANIFESTS):
        return
    mine = ("name", "split", "root", "source")
    if "converter" not in found or any(found.get(k) != header.get(k) for k in mine):
        what = f"of {found.get('name')!r}, {found.get('split')!r}" if found else "without a header"
        raise FolderError(f"{out} is another data folder ({what}); choose a new one")


def _checked_rows(converter: Converter, root: Path, split: str, limit: int) -> list[Row]:
    """The rows, checked like those of a manifest; their files must exist."""
    assert converter.rows is not None
    rows: dict[str, Row] = {}
    for row in islice(converter.rows(root, split), limit if limit > 0 else None):
        where = f"{converter.name}, {split}, {row.get('id')!r}"
        row = check_row(row, where)
        if row["id"] in rows:
            raise FolderError(f"{where} occurs twice; does {root} hold two copies of the data set?")
        for path in row_paths(row):
            resolve_path(root, path, where)
        rows[row["id"]] = row
    if not rows:
        raise FolderError(f"{root} has no images of {converter.name}, {split}; is it the right folder?")
    return list(rows.values())


def _write_samples(out: Path, header: Row, samples: Iterator[Sample], limit: int) -> Path:
    writer = FolderWriter(out, header)
    for sample in islice(samples, limit if limit > 0 else None):
        if not writer.has(str(sample.id)):
            writer.write(sample)
    if not writer.finish():
        raise FolderError(f"{header['source']} has no images of {header['name']}; is it the right folder?")
    return out
