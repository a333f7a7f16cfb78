"""`rows.jsonl`: what each picture adds to the scores, on the disk as soon as it is known.

The first line says what was evaluated; the rest are rows, the newest of an id counts. Several processes share an
evaluation by files of their own (`rows-1-of-2.jsonl`); all files of a folder are read together.
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

SCHEMA = "twofold-rows/1"
# Sums longer than this (histograms, confusion matrices) are packed; shorter ones a person can read.
READABLE = 8
# Of one vector: a confusion matrix of 2000 classes.
MAX_BYTES = 2**25

Row = dict[str, Any]


def pack(sums: Tensor) -> list[float] | str:
    """A float64 vector as JSON, exact to the last bit: numbers, or base64 of the compressed bytes."""
    if len(sums) <= READABLE:
        return sums.tolist()
    return base64.b64encode(zlib.compress(sums.numpy().astype("<f8").tobytes())).decode()


def unpack(said: list[float] | str) -> Tensor:
    """The float64 vector that `pack` was given. EvaluationError for anything else."""
    try:
        if not isinstance(said, str):
            return torch.tensor([float(number) for number in said], dtype=torch.float64)
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(said, validate=True), MAX_BYTES)
        if not stream.eof:
            raise ValueError("cut short, or longer than any sum")
        return torch.from_numpy(np.frombuffer(data, "<f8").astype(float))
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise EvaluationError(
            f"a row of an evaluation holds sums that are none ({error}); evaluate it again"
        ) from None


def pack_all(sums: Mapping[str, Tensor]) -> dict[str, Any]:
    """Vectors by name; a long one that equals an earlier one (several scores of one confusion) names it: '=miou'."""
    found: dict[str, Any] = {}
    for name, vector in sums.items():
        alike = (k for k in found if len(vector) > READABLE and torch.equal(sums[k], vector))
        same = next(alike, "")
        found[name] = f"={same}" if same else pack(vector)
    return found


def unpack_from(sums: Mapping[str, Any], name: str) -> Tensor:
    """One of the vectors that `pack_all` was given."""
    packed = sums.get(name)
    if isinstance(packed, str) and packed.startswith("="):
        packed = sums.get(packed[1:])
    return unpack(packed)  # ty: ignore[invalid-argument-type]


def file_name(shard: Shard) -> str:
    """Of the rows of process ``k`` of ``n``."""
    return "rows.jsonl" if shard == Shard() else f"rows-{shard.index + 1}-of-{shard.count}.jsonl"


def read_all(out: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a folder by id, from every process's file; a row that is done beats one that failed.

    Raises:
        EvaluationError: a file is none of rows, or is of another evaluation than ``identity``.
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
    if len(lines) == 1:  # a kill left half a first line
        return found
    for number, line in enumerate(lines, 1):
        if number > 1 and not line.strip():
            continue
        try:
            row = parse_object(line, "it")
            if number > 1:
                _check_row(row)
        except FormatError as error:
            if number == len(lines) > 1:  # torn: a kill does that
                break
            what = "holds no rows of an evaluation" if number == 1 else "is no row of an evaluation"
            where = escape(path) if number == 1 else f"{escape(path)}, line {number},"
            raise EvaluationError(f"{where} {what} ({error}); move the file away") from None
        if number == 1:
            _check(row, identity, path)
        else:
            found[row["id"]] = row
    return found


def _check_row(row: Row) -> None:
    """FormatError unless a row has what the report reads, of the right types."""
    check_types(row, {"id": str, "status": str}, "it")
    if row["status"] not in ("done", "skipped", "failed"):
        raise FormatError(f"it: the status is {quoted(row['status'])}")
    if row["status"] != "done":
        check_types(row, {"why": str}, "it")
        return
    check_types(row, {"values": dict}, "it")
    check_values(row["values"], int | float | None, "its values")
    for key in ("sums", "baselines", "frames", "fit", "labels"):
        if key in row:
            check_types(row, {key: dict}, "it")
    check_types(row, {"sums": dict} if "found" not in row else {"found": list}, "it")
    if "labels" in row:
        check_types(row["labels"], {"least": int | float, "most": int | float}, "its labels")
    check_values(row.get("sums", {}), list | str, "its sums")
    check_values(row.get("baselines", {}), dict, "its baselines")


def _check(head: Any, identity: Mapping[str, Any], path: Path) -> None:
    if head.get("schema") != SCHEMA or not isinstance(head.get("identity"), dict):
        raise EvaluationError(f"{escape(path)} holds no rows of an evaluation; choose another --out")
    mine, theirs = _flat(json.loads(json.dumps(identity))), _flat(head["identity"])
    differ = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
    if differ:
        raise EvaluationError(
            f"{escape(path)} is of another evaluation (another {escape(', '.join(differ)[:80])}); choose another --out"
        )


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of nested objects by their dotted names, to say which of them differs."""
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= {f"{key}.{k}": v for k, v in _flat(one).items()} if isinstance(one, dict) else {key: one}
    return found


class Writer:
    """Appends rows to one process's file, each synced to the disk; a kill truncates at most the last line."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Locks the file and removes a truncated last line. EvaluationError when another process writes there."""
        self.path = path
        path.touch()
        busy = EvaluationError(
            f"another process writes {escape(path)}; wait for it, or share the work with --shard"
        )
        self._lock = ExitStack()
        self._lock.enter_context(file_lock(path, busy=busy))
        if not truncate_partial_line(path):
            append_line(path, to_json({"schema": SCHEMA, "identity": dict(identity)}))

    def put(self, row: Row) -> None:
        """Adds a row. OSError when the disk does not take it."""
        append_line(self.path, to_json(row))

    def close(self) -> None:
        """Releases the lock."""
        self._lock.close()
