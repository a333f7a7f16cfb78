"""The command `twofold data import`, which converts a Hugging Face data set to a data folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from twofold.cli.console import OK, CommandError, print_json, print_line, with_progress
from twofold.cli.options import choice
from twofold.cli.usage import refuse_unused


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Saved data set, Parquet file or folder, or owner/name.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The data folder, new or incomplete.")],
    split: Annotated[str, typer.Option(help="Required when there are several.")] = "",
    image: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the image.")] = "image",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN[,KEY=VALUE...]",
            help="A target and how it is stored: depth=depth,codec=png16,scale=0.001. May be repeated.",
        ),
    ] = None,
    caption: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the caption.")] = "",
    id: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the sample's id; by default a number.")
    ] = "",
    camera: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of fx fy cx cy, or of a 3x3 matrix.")
    ] = "",
    kind: Annotated[str, choice("--kind", ("real", "rendered", "synthetic"), "Kind of the images.")] = "real",
    licence: Annotated[str, typer.Option(help="Licence of the data.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Only the first N samples; 0 for all.")] = 0,
    revision: Annotated[str, typer.Option(help="Revision of a data set of the hub.")] = "",
) -> int:
    """Make a data folder of a Hugging Face data set: columns become images, targets and captions.

    The stored bytes are not re-encoded: 16-bit and float maps keep their values. No code of the data set is run and no
    path in it is followed. An interrupted command continues when it is run again. Needs the extra 'data'.
    """
    from twofold.data.hub import Columns, import_table

    if Path(source).exists():
        refuse_unused("for local files: only data sets of the hub have revisions", "revision")
    targets = dict(map(_target, target or []))
    columns = Columns(image, targets, caption, id, camera)
    steps = import_table(source, out, columns, split, licence, kind, limit, revision)  # ty: ignore[invalid-argument-type]
    written = existing = 0
    for name, new in with_progress(steps, limit, "import"):
        written, existing = written + new, existing + (not new)
        print_json({"id": name, "written": new})
    print_line(f"{written} samples imported, {existing} existed: {out}/ (now: twofold data validate {out})")
    return OK


def _target(text: str) -> tuple[str, tuple[str, dict[str, Any]]]:
    """Parse 'depth=column,codec=png16,scale=0.001' to (target, (column, descriptor)); values are JSON, or else text."""
    name, mark, rest = text.partition("=")
    # Commas within [ ] belong to a list.
    column, *entries = re.split(r",(?![^\[]*\])", rest)
    if not (name and mark and column):
        raise CommandError(
            f"--target {text!r} is not NAME=COLUMN, such as depth=depth,codec=png16,scale=0.001"
        )
    descriptor: dict[str, Any] = {}
    for entry in entries:
        key, mark, value = entry.partition("=")
        if not (key and mark):
            raise CommandError(f"--target {text!r}: {entry!r} is not KEY=VALUE, such as scale=0.001")
        try:
            descriptor[key] = json.loads(value)
        except ValueError:
            descriptor[key] = value
    return name, (column, descriptor)
