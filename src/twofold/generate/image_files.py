"""Image files generated from captions: written atomically, each with a row; existing ones are not generated again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from torch import Tensor

from twofold.environment import installed
from twofold.generate.images import ImageGenerator
from twofold.image import ImageError
from twofold.image.errors import decoding
from twofold.io import (
    FormatError,
    UnsafeNameError,
    atomic_write,
    check_name,
    check_types,
    escape,
    first_line,
    parse_object,
    to_json,
)
from twofold.predict.finite import NonFiniteError
from twofold.predict.result_log import ResultLog, Row
from twofold.predict.results import open_output

FILE, SCHEMA = "generated.jsonl", "twofold-generated/1"

_FOREIGN = "it is not replaced; move it, or choose another --seed or --out"


@dataclass(frozen=True)
class Request:
    """One image to generate: its file ``name`` without a suffix, its caption and its seed."""

    name: str
    caption: str
    seed: int


@dataclass(frozen=True)
class ImageFileOptions:
    """Which images are generated, and where they are written.

    Attributes:
        generator: of the images.
        requests: one for each image, of different names.
        out: folder of the images and of ``generated.jsonl``.
        size: height and width in pixels; those of ``image`` where it is given.
        settings: JSON values that decide the pixels beside caption and seed, to recognise existing images.
        image: to start from, ``3 h w`` in [0, 1] (img2img), with its ``strength``.
        strength: see `ImageGenerator`.
        overwrite: generate existing images again.
    """

    generator: ImageGenerator
    requests: Sequence[Request]
    out: Path
    size: tuple[int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    image: Tensor | None = None
    strength: float = 1.0
    overwrite: bool = False


def generate_files(options: ImageFileOptions) -> Iterator[Row]:
    """Generate the images one after the other and yield a row for each, once its file is on the disk.

    A row's ``status`` is ``done``, ``kept`` (it exists, with the same settings) or ``failed`` with ``error``.
    Killed at any time and run again, it ends with the same files.

    Raises:
        OutputError: no image can be written (full disk, read-only folder).
        ResultLogError: the folder's rows are not rows, or another process writes there.
    """
    with open_output(options.out, file=FILE, check=_checked) as (log, folder):
        for request in options.requests:
            folder.check()
            yield _generate_file(options, request, log)


def generated_images(folder: Path) -> list[Path]:
    """The images that ``generated.jsonl`` of a folder lists as done, in order of name.

    Raises:
        ResultLogError: its rows are not rows.
    """
    rows = ResultLog(folder, FILE, _checked).rows
    return [folder / row["path"] for _, row in sorted(rows.items()) if row["status"] == "done"]


def _generate_file(options: ImageFileOptions, request: Request, log: ResultLog) -> Row:
    """One image from caption to row. An OSError comes from writing, and ends the run."""
    path = options.out / f"{request.name}.png"
    row: Row = {
        "schema": SCHEMA,
        "name": request.name,
        "status": "done",
        "path": path.name,
        "caption": request.caption,
        "seed": request.seed,
        "settings": _plain(options.settings),
        "version": installed("twofold") or "0+source",
    }
    known = log.rows.get(request.name)
    if path.exists() and (known is None or known["status"] != "done"):
        known = _row_inside(path)  # a kill after the file and before its row
    if os.path.lexists(path) and known is None:
        return {
            **row,
            "status": "failed",
            "error": f"{escape(path)} exists and {FILE} does not list it; {_FOREIGN}",
        }
    if known is not None and path.exists() and not options.overwrite:
        conflict = _conflict(known, row, path)
        if not conflict and path.stat().st_size == known.get("bytes"):
            return {**known, "status": "kept"}
        if conflict:
            return {**row, "status": "failed", "error": conflict}
    start = time.perf_counter()
    try:
        image = options.generator(
            [request.caption], options.size, _start(options), options.strength, request.seed
        )[0]
    except NonFiniteError as error:
        return _failed(row, str(error), log)
    except (RuntimeError, MemoryError) as error:
        reason = first_line(error)
        return _failed(
            row,
            f"{request.name} could not be generated ({reason}); try a smaller --size, or another --device",
            log,
        )
    row |= {"size": list(image.shape[-2:]), "seconds": round(time.perf_counter() - start, 3)}
    _write(path, image, row)
    data = path.read_bytes()
    row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    log.put(row)
    return row


def _start(options: ImageFileOptions) -> Tensor | None:
    return None if options.image is None else options.image[None]


def _conflict(known: Row, row: Row, path: Path) -> str:
    """Why the existing file is not the one that the row describes; "" where it is."""
    advice = "use --overwrite, another --seed, or another --out"
    mine, theirs = (
        {**(r.get("settings") or {}), "caption": r.get("caption"), "seed": r.get("seed")}
        for r in (row, known)
    )
    keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
    return f"{escape(path)} was generated with other settings ({', '.join(keys)}); {advice}" if keys else ""


def _row_inside(path: Path) -> Row | None:
    """The row in the PNG's own text, if it is one that `_write` wrote."""
    try:
        with decoding(escape(path)), Image.open(path, formats=("PNG",)) as image:
            text = str(image.info.get("twofold", ""))
        return _checked(parse_object(text, "its text"))
    except (ImageError, FormatError, UnsafeNameError):
        return None


def _checked(row: Row) -> Row:
    """A row, checked. FormatError or UnsafeNameError for the first entry of another type."""
    if row.get("schema") != SCHEMA:
        raise FormatError(f"its schema is not {SCHEMA}")
    check_types(
        row,
        {"name": str, "status": str, "path": str, "caption": str, "seed": int, "settings": dict},
        "the row",
    )
    check_name(row["path"], "the path", portable=False)
    return row


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    return json.loads(to_json(dict(settings)))


def _failed(row: Row, error: str, log: ResultLog) -> Row:
    row = {**row, "status": "failed", "error": error}
    log.put(row)
    return row


def _write(path: Path, image: Tensor, row: Mapping[str, Any]) -> None:
    """An 8-bit PNG with its row inside (the text chunk ``twofold``)."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("twofold", to_json({k: v for k, v in row.items() if k != "seconds"}))
    levels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG", pnginfo=text)
