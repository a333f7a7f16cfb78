"""The paths of result files, and checks that they can be written and still exist at the end."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from twofold.io import (
    OutputFolder,
    UnsafeNameError,
    as_disk_full,
    check_name,
    escape,
    remove_leftovers,
    safe_output_path,
)
from twofold.predict.result_log import FILE, ResultLog, Row, sole_writer


class OutputError(ValueError):
    """Results cannot be written. The message is one line; files that were written before are complete.

    Attributes:
        started: whether anything may have been written.
    """

    started = True


class NoOutputError(OutputError):
    """The output folder cannot be created."""

    started = False


@contextmanager
def open_output(
    out: Path, inner: Iterable[Path] = (), file: str = FILE, check: Callable[[Row], Row] | None = None
) -> Generator[tuple[ResultLog, OutputFolder]]:
    """Create and lock an output folder, and read its log, which is compacted at the end.

    Args:
        out: the folder; temporary files that killed processes left in it and in ``inner`` are removed.
        inner: folders below it that are written to.
        file: see `ResultLog`.
        check: see `ResultLog`.

    Raises:
        NoOutputError: the folder cannot be created.
        OutputError: instead of an OSError inside the block.
        ResultLogError: the log is damaged, or another process writes to the folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise NoOutputError(
            f"cannot create the folder {escape(out)} ({reason}); choose another --out"
        ) from error
    try:
        with sole_writer(out):
            folder, log = OutputFolder(out), ResultLog(out, file, check)
            for written in {out, *inner}:
                remove_leftovers(written)
            yield log, folder
            folder.check()
            log.compact()
    except OSError as error:
        raise OutputError(write_failure(error, out)) from error


def result_paths(out: Path, name: str, tasks: Iterable[str]) -> list[Path]:
    """The longest path below ``out`` that is written for each task of the input ``name``.

    Raises:
        UnsafeNameError: the name or a task is not valid in a file name, or leads out of the folder through a link.
    """
    check_name(name, "the name", nested=True, portable=False)
    endings = [*(f"{task}_uncertainty.npy" for task in tasks), "side_by_side.png"]
    names = (f"{name}_{ending}" for ending in endings)
    return [safe_output_path(out, n, "the result", nested=True, portable=False) for n in names]


def usable_paths(out: Path, name: str, tasks: Iterable[str]) -> list[Path]:
    """`result_paths`, or an empty list instead of an error."""
    with suppress(UnsafeNameError):
        return result_paths(out, name, tasks)
    return []


def check_results(log: ResultLog, names: Sequence[str]) -> None:
    """Raise OSError (ENOENT) for the first file that the rows of ``names`` list and that no longer exists."""
    for name in names:
        for task in log.rows[name]["tasks"].values():
            for file in task["files"].values():
                path = log.path.parent / file["path"]
                if not path.is_file():
                    raise OSError(errno.ENOENT, "it was deleted while results were written", str(path))


def write_failure(error: OSError, out: Path) -> str:
    """A message in one line about results that cannot be written to ``out``: the file, the reason and what to do."""
    path = error.filename or out
    full = as_disk_full(error, path)
    if full is not None:
        return str(full)
    advice = "files written so far are complete; run the same command again to continue"
    return f"cannot write {escape(path)} ({error.strerror or error}); {advice}"
