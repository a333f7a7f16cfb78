"""Predictions of many image files: written atomically, each followed by its row, and not repeated if they exist."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from twofold.environment import installed
from twofold.image import ImageError, read_image, write_image
from twofold.image.rgb import as_float, check_file, read_levels
from twofold.io import DiskFullError, UnsafeNameError, escape, first_line, sha256_file
from twofold.predict.base import BasePredictor, predict_tasks
from twofold.predict.finite import NonFiniteError, check_finite
from twofold.predict.inputs import Input
from twofold.predict.ledger import SCHEMA, Ledger, Row
from twofold.predict.prediction import Prediction
from twofold.predict.results import check_results, output_ledger, result_paths, usable_paths
from twofold.visualization import side_by_side

# After one of these the next image cannot be written either.
_FATAL = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
# What does not change the numbers: where the model lies, and on what it runs.
_INCIDENTAL = {"model", "device"}
# Of the row of an image: the tasks (and SHEET) whose files are being written, and its image of all maps.
WRITING, SHEET = "writing", "side_by_side"
# What the files of a task end in; see `Prediction.save`.
_ENDS = (".npy", ".png", "_color.png", "_uncertainty.npy")
_FOREIGN = (
    "it is no result listed in predictions.jsonl, so it is not replaced; move it, or choose another --out"
)


T = TypeVar("T")


class LazyPredictors(Mapping[str, BasePredictor]):
    """Predictors by task name that ``open_all`` opens when the first of them is used."""

    def __init__(self, names: Sequence[str], open_all: Callable[[], Mapping[str, BasePredictor]]) -> None:
        self._names, self._open, self._opened = list(names), open_all, None

    def __getitem__(self, name: str) -> BasePredictor:
        if self._opened is None:
            self._opened = self._open()
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Job:
    """What is predicted of every image.

    predictors: by task name.
    settings: by task name: all that decides the numbers (JSON values), to know results again.
    out: folder of the results.
    size: longest edge the model works at, 0 for the image's own, None for the model's default.
    seed: of whatever is random.
    overwrite: do again what is there.
    side_by_side: also write `<name>_side_by_side.png`, the image and the maps in colour.
    """

    predictors: Mapping[str, BasePredictor]
    settings: Mapping[str, Mapping[str, Any]]
    out: Path
    size: int | None = None
    seed: int = 0
    overwrite: bool = False
    side_by_side: bool = False


def predict_files(job: Job, inputs: Sequence[Input]) -> Iterator[Row]:
    """Predicts the inputs one after the other and yields a row for each, once its files are on the disk.

    A row's `status` is "done", "kept" (it was there, made from the same file with the same settings) or
    "failed" with `error`. Killed at any moment and run again, the same job ends with the same files.
    OutputError when no result can be written (full disk, read-only folder); LedgerError when the folder's
    rows are not rows, or another process writes there.
    """
    paths = (p for item in inputs for p in usable_paths(job.out, item.name, job.predictors))
    with output_ledger(job.out, (path.parent for path in paths)) as (ledger, folder):
        done: list[str] = []
        for item in inputs:
            folder.check()
            row = _one(job, item, ledger)
            done += [item.name] if row["status"] == "done" else []
            yield row
        check_results(ledger, done)


def _one(job: Job, item: Input, ledger: Ledger) -> Row:
    """One image from file to row. An OSError is the output's, and ends the job."""
    known = ledger.rows.get(item.name)
    row: Row = {
        "schema": SCHEMA,
        "name": item.name,
        "input": item.path.as_posix(),
        "input_sha256": None,
        "size": None,
        "status": "done",
        "version": installed("twofold") or "0+source",
        "tasks": {},
    }
    try:
        result_paths(job.out, item.name, job.predictors)
        row["input_sha256"] = _read(lambda path: sha256_file(check_file(path)), item.path)
        wanted = _take_over(job, row, known)
        if known is not None and not wanted and not _lacks_side_by_side(job, item):
            return {**known, "input": row["input"], "status": "kept"}
        image = _read(read_levels, item.path)
        row["size"] = list(image.shape[-2:])
        owned = _owned(known)
        _check_foreign(job, item, wanted, owned)
    except UnsafeNameError as error:
        return _failed(row, f"{escape(item.path)}: {error}", ledger)
    except (ImageError, FileExistsError) as error:
        return _failed(row, first_line(error), ledger)
    _retract(job, row, wanted, owned, ledger)
    reason = _predict(job, item, row, wanted, image)
    if reason:
        return _failed(row, reason, ledger)
    del row[WRITING]
    ledger.put(row)
    return row if wanted else {**row, "status": "kept"}


def _read(read: Callable[[Path], T], path: Path) -> T:
    """What ``read`` makes of an input; ImageError in place of an OSError, which would be the output's."""
    try:
        return read(path)
    except DiskFullError:
        raise
    except OSError as error:
        raise ImageError(first_line(error)) from error


def _take_over(job: Job, row: Row, known: Row | None) -> list[str]:
    """The tasks left to predict; the row takes over the results that are there.

    FileExistsError where they are not of this file with these settings.
    """
    wanted = list(job.predictors)
    if known is None or known["status"] == "failed":
        return wanted
    if known["input_sha256"] == row["input_sha256"]:
        row |= {"size": known["size"], "tasks": dict(known["tasks"])}
        row |= {SHEET: known[SHEET]} if SHEET in known else {}
    return wanted if job.overwrite else [task for task in wanted if not _kept(job, known, row, task)]


def _kept(job: Job, known: Row, row: Row, task: str) -> bool:
    """Whether the results of `task` are there and are what this job would make; FileExistsError for others."""
    there = known["tasks"].get(task)
    if there is None:
        return False
    files = [job.out / f["path"] for f in there["files"].values()]
    if not any(f.is_file() for f in files):
        return False
    way_out = "use --overwrite, or another --out"
    if known["input_sha256"] != row["input_sha256"]:
        of = "an earlier state of it" if known["input"] == row["input"] else escape(known["input"])
        raise FileExistsError(
            f"{escape(row['input'])}: {escape(files[0])} holds the result of {of}; {way_out}"
        )
    mine, theirs = _identity(job.settings[task]), _identity(there["settings"])
    if mine != theirs:
        keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
        how = f"was made with other settings ({', '.join(keys)})"
        raise FileExistsError(f"{escape(row['input'])}: {escape(files[0])} {how}; {way_out}")
    sizes = [f["bytes"] for f in there["files"].values()]
    return all(f.is_file() and f.stat().st_size == n for f, n in zip(files, sizes, strict=True))


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What two settings must share for their numbers to be equal, as JSON gives it back."""
    return json.loads(json.dumps({k: v for k, v in settings.items() if k not in _INCIDENTAL}))


def _owned(known: Row | None) -> set[str]:
    """Of what the files of this name are this library's, by its rows: tasks, and SHEET."""
    if known is None:
        return set()
    return {*known["tasks"], *known.get(WRITING, ()), *([SHEET] if SHEET in known else ())}


def _check_foreign(job: Job, item: Input, wanted: Sequence[str], owned: set[str]) -> None:
    """FileExistsError where a file is in the way that no row of the output folder lists."""
    base = job.out / item.name
    ends = {task: [f"_{task}{end}" for end in _ENDS] for task in wanted}
    ends |= {SHEET: ["_side_by_side.png"]} if job.side_by_side else {}
    for what in ends.keys() - owned:
        for path in (base.with_name(base.name + end) for end in ends[what]):
            if os.path.lexists(path):
                raise FileExistsError(f"{escape(path)} exists; {_FOREIGN}")


def _retract(job: Job, row: Row, wanted: list[str], owned: set[str], ledger: Ledger) -> None:
    """Takes back what the row says of files about to be replaced, and lists what is about to be written.

    So no kill leaves the row untrue, and what it leaves is known again.
    """
    for task in wanted:
        row["tasks"].pop(task, None)
    row[WRITING] = sorted({*wanted, *([SHEET] if job.side_by_side else []), *owned} - row["tasks"].keys())
    ledger.put({**row, "status": "begun", "tasks": dict(row["tasks"])})


def _predict(job: Job, item: Input, row: Row, wanted: Sequence[str], image: Tensor) -> str:
    """Predicts the tasks, writes their files and lists them in the row; returns why it failed, or ""."""
    predictors = {task: job.predictors[task] for task in wanted}
    try:
        start = time.perf_counter()
        for task, [prediction] in predict_tasks(predictors, [image], job.size, job.seed):
            # What tasks share is part of the first one's time.
            seconds = round(time.perf_counter() - start, 3)
            row["tasks"][task] = {**_save(job, item, task, prediction), "seconds": seconds}
            start = time.perf_counter()
        if job.side_by_side:
            _write_side_by_side(job, item, row, image)
            row[SHEET] = _side_by_side_path(job, item).relative_to(job.out).as_posix()
    except ImageError as error:
        return first_line(error)
    except NonFiniteError as error:
        return f"{escape(item.path)}: {error}"
    except (RuntimeError, MemoryError) as error:
        _free_memory()
        advice = "try a smaller --size, or another --device or --dtype"
        return f"{escape(item.path)} could not be predicted ({first_line(error)}); {advice}"
    except OSError as error:
        if isinstance(error, DiskFullError) or error.errno in _FATAL:
            raise
        return f"{escape(item.path)}: its results cannot be written ({error.strerror or error})"
    return ""


def _save(job: Job, item: Input, task: str, prediction: Prediction) -> dict[str, Any]:
    """Write the files of one task; returns its entry in the row."""
    check_finite(prediction.map, f"the {task} prediction")
    target = job.out / item.name
    files = {}
    for kind, path in prediction.save(target.parent, target.name, overwrite=True).items():
        relative = path.relative_to(job.out).as_posix()
        files[kind] = {"path": relative, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return {"files": files, "settings": dict(job.settings[task]), "numbers": prediction.numbers}


def _side_by_side_path(job: Job, item: Input) -> Path:
    return job.out / f"{item.name}_side_by_side.png"


def _lacks_side_by_side(job: Job, item: Input) -> bool:
    return job.side_by_side and not _side_by_side_path(job, item).is_file()


def _write_side_by_side(job: Job, item: Input, row: Row, image: Tensor) -> None:
    colors = []
    for task in job.predictors:
        file = row["tasks"][task]["files"].get("color")
        if file is None:
            raise ImageError(f"{escape(item.path)}: {task} has no image in colour; use --overwrite")
        colors.append(read_image(job.out / file["path"]))
    write_image(_side_by_side_path(job, item), side_by_side([as_float(image), *colors]))


def _failed(row: Row, error: str, ledger: Ledger) -> Row:
    """The row of a failure. It is stored only where it does not hide results that are there."""
    row = {**row, "status": "failed", "error": error}
    known = ledger.rows.get(row["name"])
    if known is None or not known["tasks"] or known["status"] == "begun":
        ledger.put(row)
    return row


def _free_memory() -> None:
    """Free an accelerator's cached memory after an image that did not fit."""
    import torch

    with suppress(RuntimeError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
