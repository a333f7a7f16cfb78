"""`predictions.jsonl`: one row an image, consistent at every moment, also after a kill."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twofold.io import (
    FormatError,
    UnsafeNameError,
    append_line,
    atomic_write,
    check_name,
    check_types,
    escape,
    file_lock,
    parse_object,
    quoted,
    safe_output_path,
    to_json,
)

FILE = "predictions.jsonl"
SCHEMA = "twofold-predictions/1"

Row = dict[str, Any]


class LedgerError(ValueError):
    """The rows of an output folder cannot be used. One line: which file, what is wrong, and the way out."""


class Ledger:
    """The rows of one file of an output folder, by the name of the image.

    Rows are appended, each flushed to the disk, so that a kill costs at most the line being written; such a
    torn last line is dropped when the file is read. `compact` then leaves the newest row of every name, in
    order of name.
    """

    def __init__(self, folder: Path, file: str = FILE, check: Callable[[Row], Row] | None = None) -> None:
        """Reads what is there. LedgerError when the file is something else.

        file: its name; `predictions.jsonl` by default.
        check: gives a row back, or raises FormatError or UnsafeNameError; that of predictions by default.
        """
        self.path = safe_output_path(folder, file, "the list of results")
        self._check = check or _checked
        self.rows: dict[str, Row] = {}
        self._torn = False  # the file ends in half a line: nothing may be added to it as it is
        self._untidy = False  # the file is not what `compact` would write
        text = self.path.read_text("utf-8", errors="replace") if self.path.exists() else ""
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(line, number, last=number == len(lines))
        self._untidy |= self._torn or list(self.rows) != sorted(self.rows)

    def _take(self, line: str, number: int, last: bool) -> None:
        """One line; the last one has no line end and was torn by a kill, unless it is whole by luck."""
        self._torn = last
        try:
            row = self._check(parse_object(line, "a row"))
        except (FormatError, UnsafeNameError) as error:
            if last:
                return
            where = f"{escape(self.path)}, line {number}, is not a row of results"
            raise LedgerError(f"{where} ({error}); move the file away") from None
        name = row["name"]
        self._untidy |= name in self.rows
        self.rows[name] = row

    def put(self, row: Row) -> None:
        """Adds a row, or replaces that of the same name. OSError when the disk does not take it."""
        line = to_json(row)
        if self._torn:
            self.compact()
        append_line(self.path, line)
        self.rows[str(row["name"])] = row
        self._untidy = True

    def compact(self) -> None:
        """Rewrites the file: one row a name, sorted by name. Whole, or not at all."""
        if not self._untidy:
            return
        self._torn = self._untidy = False
        self.rows = dict(sorted(self.rows.items()))
        lines = [to_json(row) + "\n" for row in self.rows.values()]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(lines), "utf-8", newline="\n")


def _checked(row: Row) -> Row:
    """A row with all that is read of it; FormatError or UnsafeNameError for the first entry of another type."""
    if row.get("schema") != SCHEMA:
        raise FormatError(f"its schema is not {SCHEMA}")
    check_types(row, {"name": str, "input": str, "status": str, "tasks": dict}, "the row")
    check_types(row, {"input_sha256": str | None, "size": list | None}, "the row")
    writing = row.get("writing", [])
    if not (isinstance(writing, list) and all(isinstance(what, str) for what in writing)):
        raise FormatError("its 'writing' is not a list of names")
    size = row["size"]
    if size is not None and not (len(size) == 2 and all(isinstance(n, int) for n in size)):
        raise FormatError("its size is not [height, width]")
    for task, done in row["tasks"].items():
        if not isinstance(done, dict):
            raise FormatError(f"its task {quoted(task)} is not an object")
        check_types(
            done, {"files": dict, "settings": dict, "seconds": int | float}, f"the task {quoted(task)}"
        )
        for kind, file in done["files"].items():
            if not isinstance(file, dict):
                raise FormatError(f"its file {quoted(kind)} is not an object")
            check_types(file, {"path": str, "bytes": int, "sha256": str}, f"the file {quoted(kind)}")
            check_name(file["path"], "the path", nested=True, portable=False)
    return row


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Holds an output folder for this process. LedgerError when another process holds it.

    The system lets go of it when the process ends, however it ends. Where it has no such locks (Windows),
    nothing is held.
    """
    error = f"another twofold writes to {escape(folder)}; wait for it, or choose another --out"
    with file_lock(folder, busy=LedgerError(error)):
        yield
