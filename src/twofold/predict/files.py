"""Predict many image files: results are written atomically, logged in one row per image, and not computed again."""

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
from twofold.predict.prediction import Prediction
from twofold.predict.result_log import SCHEMA, ResultLog, Row
from twofold.predict.results import check_results, open_output, result_paths, usable_paths
from twofold.visualization import side_by_side

# Errors after which the next image cannot be written either.
_FATAL = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
# Settings that do not change the numbers: the path of the model and the device.
_IGNORED_SETTINGS = {"model", "device"}
# Keys of a row: the tasks (and SHEET) whose files are being written, and the file of the side-by-side image.
WRITING, SHEET = "writing", "side_by_side"
# Endings of the files of a task; see `Prediction.save`.
_ENDINGS = (".npy", ".png", "_color.png", "_uncertainty.npy")
_FOREIGN = "predictions.jsonl does not list it, so it is not replaced; move it, or choose another --out"


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
    """Settings of `predict_files`.

    Attributes:
        predictors: by task name.
        settings: by task name: everything that determines the numbers (JSON values), to identify existing results.
        out: output folder.
        size: longest edge in pixels that images are resized to; 0 for the image's size, None for the model's default.
        seed: of stochastic protocols.
        overwrite: replace existing results.
        side_by_side: also write ``<name>_side_by_side.png``, the image beside its coloured maps.
    """

    predictors: Mapping[str, BasePredictor]
    settings: Mapping[str, Mapping[str, Any]]
    out: Path
    size: int | None = None
    seed: int = 0
    overwrite: bool = False
    side_by_side: bool = False


def predict_files(job: Job, inputs: Sequence[Input]) -> Iterator[Row]:
    """Predict the inputs in order; yields a row for each once its files are written.

    The ``status`` of a row is "done", "kept" (the result of the same file with the same settings exists) or "failed"
    with an ``error``. A job that is killed and run again ends with the same files.

    Raises:
        OutputError: no result can be written (full disk, read-only folder).
        ResultLogError: predictions.jsonl is damaged, or another process writes to the folder.
    """
    paths = (p for item in inputs for p in usable_paths(job.out, item.name, job.predictors))
    with open_output(job.out, (path.parent for path in paths)) as (log, folder):
        done: list[str] = []
        for item in inputs:
            folder.check()
            row = _predict_file(job, item, log)
            done += [item.name] if row["status"] == "done" else []
            yield row
        check_results(log, done)


def _predict_file(job: Job, item: Input, log: ResultLog) -> Row:
    """Predict one image file. An OSError concerns the output folder and ends the job."""
    known = log.rows.get(item.name)
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
        wanted = _reuse_results(job, row, known)
        if known is not None and not wanted and not _lacks_side_by_side(job, item):
            return {**known, "input": row["input"], "status": "kept"}
        image = _read(read_levels, item.path)
        row["size"] = list(image.shape[-2:])
        owned = _owned(known)
        _check_foreign(job, item, wanted, owned)
    except UnsafeNameError as error:
        return _failed(row, f"{escape(item.path)}: {error}", log)
    except (ImageError, FileExistsError) as error:
        return _failed(row, first_line(error), log)
    _log_begin(job, row, wanted, owned, log)
    reason = _predict(job, item, row, wanted, image)
    if reason:
        return _failed(row, reason, log)
    del row[WRITING]
    log.put(row)
    return row if wanted else {**row, "status": "kept"}


def _read(read: Callable[[Path], T], path: Path) -> T:
    """``read(path)`` with ImageError instead of OSError, which is reserved for the output folder."""
    try:
        return read(path)
    except DiskFullError:
        raise
    except OSError as error:
        raise ImageError(first_line(error)) from error


def _reuse_results(job: Job, row: Row, known: Row | None) -> list[str]:
    """The tasks to predict; copies the existing results of the other tasks to ``row``.

    Raises:
        FileExistsError: results of another file or with other settings exist.
    """
    wanted = list(job.predictors)
    if known is None or known["status"] == "failed":
        return wanted
    if known["input_sha256"] == row["input_sha256"]:
        row |= {"size": known["size"], "tasks": dict(known["tasks"])}
        row |= {SHEET: known[SHEET]} if SHEET in known else {}
    return wanted if job.overwrite else [task for task in wanted if not _kept(job, known, row, task)]


def _kept(job: Job, known: Row, row: Row, task: str) -> bool:
    """Whether the results that this job would write for ``task`` exist.

    Raises:
        FileExistsError: results of another file or with other settings exist.
    """
    previous = known["tasks"].get(task)
    if previous is None:
        return False
    files = [job.out / f["path"] for f in previous["files"].values()]
    if not any(f.is_file() for f in files):
        return False
    advice = "use --overwrite, or another --out"
    if known["input_sha256"] != row["input_sha256"]:
        source = "an earlier state of it" if known["input"] == row["input"] else escape(known["input"])
        raise FileExistsError(
            f"{escape(row['input'])}: {escape(files[0])} holds the result of {source}; {advice}"
        )
    current, stored = _identity(job.settings[task]), _identity(previous["settings"])
    if current != stored:
        keys = sorted(k for k in {*current, *stored} if current.get(k) != stored.get(k))
        reason = f"was made with other settings ({', '.join(keys)})"
        raise FileExistsError(f"{escape(row['input'])}: {escape(files[0])} {reason}; {advice}")
    sizes = [f["bytes"] for f in previous["files"].values()]
    return all(f.is_file() and f.stat().st_size == n for f, n in zip(files, sizes, strict=True))


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine the numbers, as they are read back from JSON."""
    return json.loads(json.dumps({k: v for k, v in settings.items() if k not in _IGNORED_SETTINGS}))


def _owned(known: Row | None) -> set[str]:
    """The tasks (and SHEET) whose files of this name are results of this library, according to the log."""
    if known is None:
        return set()
    return {*known["tasks"], *known.get(WRITING, ()), *([SHEET] if SHEET in known else ())}


def _check_foreign(job: Job, item: Input, wanted: Sequence[str], owned: set[str]) -> None:
    """Raise FileExistsError if a file that no row lists would be overwritten."""
    base = job.out / item.name
    endings = {task: [f"_{task}{end}" for end in _ENDINGS] for task in wanted}
    endings |= {SHEET: ["_side_by_side.png"]} if job.side_by_side else {}
    for key in endings.keys() - owned:
        for path in (base.with_name(base.name + end) for end in endings[key]):
            if os.path.lexists(path):
                raise FileExistsError(f"{escape(path)} exists; {_FOREIGN}")


def _log_begin(job: Job, row: Row, wanted: list[str], owned: set[str], log: ResultLog) -> None:
    """Log the files that are about to be written, and remove those about to be replaced from the row.

    So the log is true after a kill, and files that a killed process left are recognised.
    """
    for task in wanted:
        row["tasks"].pop(task, None)
    row[WRITING] = sorted({*wanted, *([SHEET] if job.side_by_side else []), *owned} - row["tasks"].keys())
    log.put({**row, "status": "begun", "tasks": dict(row["tasks"])})


def _predict(job: Job, item: Input, row: Row, wanted: Sequence[str], image: Tensor) -> str:
    """Predict the tasks, write their files and add them to the row; returns the reason of a failure, or ""."""
    predictors = {task: job.predictors[task] for task in wanted}
    try:
        start = time.perf_counter()
        for task, [prediction] in predict_tasks(predictors, [image], job.size, job.seed):
            # The time of the first task includes the computation that all share.
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
    """Write the files of one task; returns the task's entry of the row."""
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
            raise ImageError(f"{escape(item.path)}: {task} has no coloured map; use --overwrite")
        colors.append(read_image(job.out / file["path"]))
    write_image(_side_by_side_path(job, item), side_by_side([as_float(image), *colors]))


def _failed(row: Row, error: str, log: ResultLog) -> Row:
    """The row of a failure. It is logged only if it does not replace the row of existing results."""
    row = {**row, "status": "failed", "error": error}
    known = log.rows.get(row["name"])
    if known is None or not known["tasks"] or known["status"] == "begun":
        log.put(row)
    return row


def _free_memory() -> None:
    """Free an accelerator's cached memory after an image that did not fit."""
    import torch

    with suppress(RuntimeError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
