"""Reads and writes `rows.jsonl`: the sums of metrics for each image, written as soon as they are computed.

The first line identifies the evaluation; each other line is a row, and the last row of an id replaces earlier ones.
Parallel processes write separate files (`rows-1-of-2.jsonl`); all files of a folder are read together.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io import (
    FormatError,
    OutputFolder,
    Shard,
    append_line,
    check_types,
    check_values,
    escape,
    file_lock,
    parse_object,
    quoted,
    to_json,
    truncate_partial_line,
)
from .protocol import EvaluationError

SCHEMA = "twofold-rows/2"
# Sums of more values than this (histograms, confusion matrices) are compressed; others are stored as numbers.
READABLE = 8
# Maximum size of one uncompressed vector: a confusion matrix of 2000 classes.
MAX_BYTES = 2**25

Row = dict[str, Any]


def pack(sums: Tensor) -> list[float] | str:
    """A float64 vector as a lossless JSON value: numbers, or base64 of the compressed bytes."""
    if len(sums) <= READABLE:
        return sums.tolist()
    return base64.b64encode(zlib.compress(sums.numpy().astype("<f8").tobytes())).decode()


def unpack(packed: list[float] | str) -> Tensor:
    """The inverse of `pack`. EvaluationError if the value is not a packed vector."""
    try:
        if not isinstance(packed, str):
            return torch.tensor([float(number) for number in packed], dtype=torch.float64)
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
        if not stream.eof:
            raise ValueError("truncated, or longer than any sum")
        return torch.from_numpy(np.frombuffer(data, "<f8").astype(float))
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise EvaluationError(
            f"a row of an evaluation has damaged sums ({error}); delete the row and evaluate again"
        ) from None


def pack_all(sums: Mapping[str, Tensor]) -> dict[str, Any]:
    """Packed vectors by name; a long vector that equals an earlier one is stored as a reference, such as '=miou'."""
    packed: dict[str, Any] = {}
    for name, vector in sums.items():
        equal = (k for k in packed if len(vector) > READABLE and torch.equal(sums[k], vector))
        same = next(equal, "")
        packed[name] = f"={same}" if same else pack(vector)
    return packed


def unpack_from(sums: Mapping[str, Any], name: str) -> Tensor:
    """One vector of the result of `pack_all`."""
    packed = sums.get(name)
    if isinstance(packed, str) and packed.startswith("="):
        packed = sums.get(packed[1:])
    return unpack(packed)  # ty: ignore[invalid-argument-type]


def file_name(shard: Shard) -> str:
    """The name of the file that the process of this shard writes."""
    return "rows.jsonl" if shard == Shard() else f"rows-{shard.index + 1}-of-{shard.count}.jsonl"


def read_all(out: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a folder by id, from the files of all processes. Failed rows are replaced by others of their id.

    Raises:
        EvaluationError: a file is not a file of rows, or its evaluation has another identity.
    """
    found: dict[str, Row] = {}
    for path in sorted(out.glob("rows*.jsonl")):
        for row in _read(path, identity).values():
            known = found.get(row["id"])
            if known is None or known["status"] == "failed":
                found[row["id"]] = row
    return found


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    lines = path.read_text("utf-8", errors="replace").split("\n")
    if len(lines) == 1:  # the process was killed while it wrote the first line
        return found
    for number, line in enumerate(lines, 1):
        if number > 1 and not line.strip():
            continue
        try:
            row = parse_object(line, "it")
            if number > 1:
                _check_row(row)
        except FormatError as error:
            if number == len(lines) > 1:  # the process was killed while it wrote the last line
                break
            problem = "has no rows of an evaluation" if number == 1 else "is not a row of an evaluation"
            where = escape(path) if number == 1 else f"{escape(path)}, line {number},"
            raise EvaluationError(f"{where} {problem} ({error}); move the file away") from None
        if number == 1:
            _check_identity(row, identity, path)
        else:
            found[row["id"]] = row
    return found


def _check_row(row: Row) -> None:
    """FormatError if an entry that the report reads is missing or has a wrong type."""
    check_types(row, {"id": str, "status": str}, "it")
    if row["status"] not in ("done", "skipped", "failed"):
        raise FormatError(f"it: the status is {quoted(row['status'])}")
    if row["status"] != "done":
        check_types(row, {"reason": str}, "it")
        return
    check_types(row, {"values": dict}, "it")
    check_values(row["values"], int | float | None, "its values")
    for key in ("sums", "baselines", "frames", "fit", "labels"):
        if key in row:
            check_types(row, {key: dict}, "it")
    check_types(row, {"sums": dict} if "detections" not in row else {"detections": list}, "it")
    if "labels" in row:
        check_types(row["labels"], {"least": int | float, "most": int | float}, "its labels")
    check_values(row.get("sums", {}), list | str, "its sums")
    check_values(row.get("baselines", {}), dict, "its baselines")


def _check_identity(header: Any, identity: Mapping[str, Any], path: Path) -> None:
    """EvaluationError if a file's first line has another schema or identity."""
    if header.get("schema") != SCHEMA or not isinstance(header.get("identity"), dict):
        raise EvaluationError(
            f"{escape(path)} has no rows of this version's evaluations; choose another --out"
        )
    expected, stored = _flatten(json.loads(json.dumps(identity))), _flatten(header["identity"])
    differ = sorted(k for k in {*expected, *stored} if expected.get(k) != stored.get(k))
    if differ:
        raise EvaluationError(
            f"{escape(path)} is of another evaluation (another {escape(', '.join(differ)[:80])}); choose another --out"
        )


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of nested objects by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= (
            {f"{key}.{k}": v for k, v in _flatten(value).items()} if isinstance(value, dict) else {key: value}
        )
    return flat


class RowWriter:
    """Appends rows to the file of one process and syncs each to the disk; a kill truncates at most the last line."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Lock the file and remove an incomplete last line. EvaluationError if another process has locked the file."""
        self.path = path
        path.touch()
        busy = EvaluationError(
            f"another process writes {escape(path)}; wait for it, or share the work with --shard"
        )
        self._lock = ExitStack()
        self._lock.enter_context(file_lock(path, busy=busy))
        self._folder = OutputFolder(path.parent)
        if not truncate_partial_line(path):
            append_line(path, to_json({"schema": SCHEMA, "identity": dict(identity)}))

    def write(self, row: Row) -> None:
        """Append a row. OSError if it cannot be written, or the folder was deleted or replaced."""
        self._folder.check()
        append_line(self.path, to_json(row))

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()
