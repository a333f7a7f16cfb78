"""Reads `predictions.jsonl`, which lists the file of each prediction in a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..io import FormatError, check_types, check_values, escape, parse_object, quoted
from ..tasks import TASKS
from .protocol import EvalProtocol, EvaluationError

LIST = "predictions.jsonl"


class ListedPrediction(NamedTuple):
    """An entry of the list: path of the prediction, and optional arguments as in `predictions.FilePredictions`."""

    path: str
    frame: str = ""
    scale: float | None = None
    stretch: bool = False


def read_list(root: Path, protocol: EvalProtocol) -> dict[str, ListedPrediction]:
    """The entries of the ``predictions.jsonl`` of a folder, by id.

    A row is ``{"id": ..., "path": ...}``, with an optional ``frame``, ``scale`` or ``stretch``, or a row that
    ``twofold predict`` wrote. Such a row has the name of an image and the sha256 of its file, and its entry has both
    as keys: the name, and ``sha256:`` followed by the digest.

    Raises:
        EvaluationError: a line is neither.
    """
    entries: dict[str, ListedPrediction] = {}
    names = [t.name for t in TASKS.values() if t.target == protocol.target and t.space in protocol.spaces]
    for number, line in enumerate((root / LIST).read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_object(line, "it")
            entries |= _listed_file(row) if "path" in row else _predict_output(row, names)
        except FormatError as error:
            where = f"{escape(root / LIST)}, line {number},"
            raise EvaluationError(
                f"{where} is not an entry ({error}); a row needs an 'id' and a 'path'"
            ) from None
    return entries


def _listed_file(row: Mapping[str, Any]) -> dict[str, ListedPrediction]:
    """The entry of a row with an id and a path."""
    entry: dict[str, Any] = {"frame": "", "scale": None, "stretch": False, **row}
    types = {"id": str | int, "path": str, "frame": str, "scale": int | float | None, "stretch": bool}
    check_types(entry, types, "it")
    if entry["scale"] is not None and not 0 < abs(entry["scale"]) < math.inf:
        raise FormatError(f"it: the scale is {entry['scale']}")
    return {
        str(entry["id"]): ListedPrediction(entry["path"], entry["frame"], entry["scale"], entry["stretch"])
    }


def _predict_output(row: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, ListedPrediction]:
    """The entries of a row of ``twofold predict``, by name and digest of the image; {} if it has none of the tasks."""
    check_types(row, {"name": str, "tasks": dict, "input_sha256": str | None}, "it")
    task = next((t for t in tasks if t in row["tasks"]), None)
    if task is None:
        return {}
    check_values(row["tasks"], dict, "its tasks")
    result = row["tasks"][task]
    check_types(result, {"files.npy.path": str, "settings": dict}, f"the task {quoted(task)}")
    listed = ListedPrediction(result["files"]["npy"]["path"], str(result["settings"].get("saved_frame", "")))
    return {row["name"]: listed, f"sha256:{row['input_sha256']}": listed}
