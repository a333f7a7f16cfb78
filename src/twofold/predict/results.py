"""The files of results: where they may lie, and whether they are still there at the end."""

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
from twofold.predict.ledger import FILE, Ledger, Row, sole_writer


class OutputError(ValueError):
    """Results cannot be written. One line; what was written before is whole and stays.

    started: whether anything may have been written.
    """

    started = True


class NoOutputError(OutputError):
    """The output folder cannot be made."""

    started = False


@contextmanager
def output_ledger(
    out: Path, inner: Iterable[Path] = (), file: str = FILE, check: Callable[[Row], Row] | None = None
) -> Generator[tuple[Ledger, OutputFolder]]:
    """An output folder, made and held for this process, with its rows, which are compacted at the end.

    Args:
        out: the folder; what killed processes left in it and in ``inner`` is removed.
        inner: folders below it that are written to.
        file: see `Ledger`, also for ``check``.
        check: of a row.

    Raises:
        NoOutputError: the folder cannot be made.
        OutputError: in place of an OSError within the block.
        LedgerError: the folder's rows are not rows, or another process writes there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise NoOutputError(
            f"cannot make the folder {escape(out)} ({reason}); choose another --out"
        ) from error
    try:
        with sole_writer(out):
            folder, ledger = OutputFolder(out), Ledger(out, file, check)
            for place in {out, *inner}:
                remove_leftovers(place)
            yield ledger, folder
            folder.check()
            ledger.compact()
    except OSError as error:
        raise OutputError(write_failure(error, out)) from error


def result_paths(out: Path, name: str, tasks: Iterable[str]) -> list[Path]:
    """The longest path that each task of the input `name` writes to, below `out`.

    UnsafeNameError when the name or a task cannot be a part of a file name, or leads out of the folder through a link.
    """
    check_name(name, "the name", nested=True, portable=False)
    ends = [*(f"{task}_uncertainty.npy" for task in tasks), "side_by_side.png"]
    names = (f"{name}_{end}" for end in ends)
    return [safe_output_path(out, n, "the result", nested=True, portable=False) for n in names]


def usable_paths(out: Path, name: str, tasks: Iterable[str]) -> list[Path]:
    """`result_paths`, or none where there would be an error."""
    with suppress(UnsafeNameError):
        return result_paths(out, name, tasks)
    return []


def check_results(ledger: Ledger, names: Sequence[str]) -> None:
    """OSError (ENOENT) naming the first file that the rows of `names` list and that is not there any more."""
    for name in names:
        for task in ledger.rows[name]["tasks"].values():
            for file in task["files"].values():
                path = ledger.path.parent / file["path"]
                if not path.is_file():
                    raise OSError(errno.ENOENT, "it was deleted while results were written", str(path))


def write_failure(error: OSError, out: Path) -> str:
    """Why results cannot be written to the folder `out`, in one line: the file, the reason and what to do."""
    where = error.filename or out
    full = as_disk_full(error, where)
    if full is not None:
        return str(full)
    again = "what was written is whole; run the same command again to go on"
    return f"cannot write {escape(where)} ({error.strerror or error}); {again}"
