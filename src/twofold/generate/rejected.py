"""Rows of generated samples that did not meet a threshold: pending files, merged into `rejected.jsonl`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..data.layout import Row, to_json, write_text
from ..io import FormatError, check_types, parse_object
from ..sample import Provenance, Sample

REJECTED, REJECTS = ".rejected", "rejected.jsonl"


class CreateError(ValueError):
    """A folder of created samples that cannot be continued. One line: what was found, and what to do."""


def read_rejected(root: Path) -> list[Row]:
    """Every row, merged or pending. CreateError where one is damaged."""
    return [*_merged(root), *_pending(root).values()]


def put_rejected(root: Path, sample: Sample, reasons: list[str]) -> Row:
    """Write the row of a sample to a file of its own, and return it."""
    assert isinstance(sample.origin, Provenance)
    origin = {"parents": list(sample.origin.parents), "generator": dict(sample.origin.generator)}
    provenance = {"origin": "synthetic", **origin}
    row: Row = {"id": str(sample.id), "reasons": reasons, "text": sample.caption, "provenance": provenance}
    path = root / REJECTED / f"{sample.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(row, f"the row of {sample.id}"))
    return row


def merge_rejected(root: Path) -> None:
    """Merge the pending rows into ``rejected.jsonl``, sorted by id. The caller holds the folder's lock."""
    pending = _pending(root)
    rows = {row["id"]: row for row in [*_merged(root), *pending.values()]}
    if rows:
        lines = [to_json(rows[key], f"the row of {key}") + "\n" for key in sorted(rows)]
        write_text(root / REJECTS, "".join(lines))
    for path in pending:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (root / REJECTED).rmdir()


def _merged(root: Path) -> list[Row]:
    path = root / REJECTS
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    return [_rejected_row(line, f"{path}, line {number},") for number, line in lines if line.strip()]


def _rejected_row(text: bytes, where: str) -> Row:
    """A row of a rejected sample, checked. CreateError names what is wrong with it."""
    try:
        row = parse_object(text, where)
        check_types(row, {"id": str, "reasons": list, "provenance.generator": dict}, where)
    except FormatError as error:
        raise CreateError(f"{error}; move the file away, or use another --out") from None
    return row


def _pending(root: Path) -> dict[Path, Row]:
    paths = sorted(p for p in (root / REJECTED).rglob("*.json") if not p.name.startswith("."))
    return {path: _rejected_row(path.read_bytes(), str(path)) for path in paths}
