"""`rows.jsonl`: the sums that each image adds to the scores, written as soon as they are computed.

The first line identifies the evaluation; the others are rows, of which the newest of an id counts. Several processes
write files of their own (`rows-1-of-2.jsonl`); all files of a folder are read together.
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
# Sums longer than this (histograms, confusion matrices) are compressed; shorter ones are plain numbers.
READABLE = 8
# Of one vector: a confusion matrix of 2000 classes.
MAX_BYTES = 2**25

Row = dict[str, Any]


def pack(sums: Tensor) -> list[float] | str:
    """A float64 vector as JSON, exact to the last bit: numbers, or base64 of the compressed bytes."""
    if len(sums) <= READABLE:
        return sums.tolist()
    return base64.b64encode(zlib.compress(sums.numpy().astype("<f8").tobytes())).decode()


def unpack(packed: list[float] | str) -> Tensor:
    """The inverse of `pack`. EvaluationError for anything else."""
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
    """Vectors by name; a long one that equals an earlier one refers to it, such as '=miou'."""
    found: dict[str, Any] = {}
    for name, vector in sums.items():
        equal = (k for k in found if len(vector) > READABLE and torch.equal(sums[k], vector))
        same = next(equal, "")
        found[name] = f"={same}" if same else pack(vector)
    return found


def unpack_from(sums: Mapping[str, Any], name: str) -> Tensor:
    """One of the vectors that `pack_all` was given."""
    packed = sums.get(name)
    if isinstance(packed, str) and packed.startswith("="):
        packed = sums.get(packed[1:])
    return unpack(packed)  # ty: ignore[invalid-argument-type]


def file_name(shard: Shard) -> str:
    """The file of a process."""
    return "rows.jsonl" if shard == Shard() else f"rows-{shard.index + 1}-of-{shard.count}.jsonl"


def read_all(out: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a folder by id, from every process's file; a row that is done beats one that failed.

    Raises:
        EvaluationError: a file has no rows, or those of another evaluation than ``identity``.
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
    if len(lines) == 1:  # a kill cut the first line short
        return found
    for number, line in enumerate(lines, 1):
        if number > 1 and not line.strip():
            continue
        try:
            row = parse_object(line, "it")
            if number > 1:
                _check_row(row)
        except FormatError as error:
            if number == len(lines) > 1:  # cut short by a kill
                break
            what = "has no rows of an evaluation" if number == 1 else "is not a row of an evaluation"
            where = escape(path) if number == 1 else f"{escape(path)}, line {number},"
            raise EvaluationError(f"{where} {what} ({error}); move the file away") from None
        if number == 1:
            _check(row, identity, path)
        else:
            found[row["id"]] = row
    return found


def _check_row(row: Row) -> None:
    """FormatError unless a row has the entries that the report reads, of the right types."""
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


def _check(head: Any, identity: Mapping[str, Any], path: Path) -> None:
    if head.get("schema") != SCHEMA or not isinstance(head.get("identity"), dict):
        raise EvaluationError(
            f"{escape(path)} has no rows of this version's evaluations; choose another --out"
        )
    mine, theirs = _flat(json.loads(json.dumps(identity))), _flat(head["identity"])
    differ = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
    if differ:
        raise EvaluationError(
            f"{escape(path)} is of another evaluation (another {escape(', '.join(differ)[:80])}); choose another --out"
        )


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of nested objects by their dotted names."""
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= {f"{key}.{k}": v for k, v in _flat(one).items()} if isinstance(one, dict) else {key: one}
    return found


class RowWriter:
    """Appends rows to one process's file, each synced to the disk; a kill truncates at most the last line."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Lock the file and remove an incomplete last line. EvaluationError when another process writes there."""
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
        """Append a row. OSError when the disk refuses it, or the folder was deleted or replaced."""
        self._folder.check()
        append_line(self.path, to_json(row))

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()
