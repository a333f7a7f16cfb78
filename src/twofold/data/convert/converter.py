"""Converters: they write the manifest of a data folder for a public data set, and leave its files in place.

A converter knows the folders, encodings, lists and pitfalls of one data set and yields a row for each image, with the
paths of its targets. `convert` turns that into a data folder of two small files, whose header's `root` is the
native tree. Nothing is downloaded, copied or changed.
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
    """How one public data set, as people have it on disk, becomes a data folder.

    name     of the command line: "hypersim", "nyuv2-marigold"
    title    the data set's own name and what this layout of it is
    licence  as far as it is known; stated when it was not verified
    access   how a person gets the files: a page, a form, an e-mail
    splits   the names that `rows` takes
    targets  a descriptor (see `data.codecs`) for each target name; a row's own entries override it
    rows     (native root, split) -> rows, with paths relative to that root; raises FolderError naming the
             file for a tree that is not what it should be
    samples  in place of `rows`, for data that no descriptor can read where they lie (fore- and background to
             be laid over each other): (native root, split) -> samples, which are written as files of `out`
    notes    pitfalls that a user should know
    header   more entries of `dataset.json`: classes, palette, protocol, image (the images' descriptor)
    version  increments when the rows or descriptors change, to recognise older folders
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
            raise ValueError(f"the converter {self.name!r} must give either rows or samples")


def convert(
    converter: Converter,
    source: str | os.PathLike[str],
    split: str,
    out: str | os.PathLike[str],
    limit: int = 0,
) -> Path:
    """Makes `out` a data folder of one split of the native tree `source`, and gives its path.

    `limit` > 0 takes the first so many. Every file that a row names is looked for, none is opened. The same
    call again renews the folder; one that something else made is refused. FolderError, naming the file, for a
    tree that is not what the converter knows, an unknown split, no images, or an `out` within `source`.
    """
    root, target = Path(os.path.realpath(source)), Path(os.path.realpath(out))
    if not root.is_dir():
        raise FolderError(f"{source} is not a folder; give the one that holds {converter.title}")
    if split not in converter.splits:
        raise FolderError(f"{converter.name} has no split {split!r}; it has {', '.join(converter.splits)}")
    if target == root or root in target.parents:
        raise FolderError(f"{out} lies within {source}, which stays as it is; choose a folder elsewhere")
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
    """FolderError when `out` holds a data folder that this converter did not make of this tree and split."""
    found = read_header(out) if (out / HEADER).exists() else {}
    if not found and not any((out / name).exists() for name in MANIFESTS):
        return
    mine = ("name", "split", "root", "source")
    if "converter" not in found or any(found.get(k) != header.get(k) for k in mine):
        what = f"of {found.get('name')!r}, {found.get('split')!r}" if found else "without a header"
        raise FolderError(f"{out} already is a data folder ({what}); choose another")


def _checked_rows(converter: Converter, root: Path, split: str, limit: int) -> list[Row]:
    """The rows, each checked like one read from a manifest, with its files looked for."""
    assert converter.rows is not None
    rows: dict[str, Row] = {}
    for row in islice(converter.rows(root, split), limit if limit > 0 else None):
        where = f"{converter.name}, {split}, {row.get('id')!r}"
        row = check_row(row, where)
        if row["id"] in rows:
            raise FolderError(f"{where} comes twice; is {root} two trees in one?")
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
