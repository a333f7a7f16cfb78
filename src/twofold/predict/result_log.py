"""`predictions.jsonl`: a log with one row per image, consistent at every moment, also after a kill."""

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


class ResultLogError(ValueError):
    """The log of an output folder cannot be used. The message is one line: the file, the fault and what to do."""


class ResultLog:
    """The rows of an output folder's log, by the name of the image.

    Rows are appended, each flushed to the disk, so that a kill loses at most the line being written; an incomplete
    last line is dropped when the file is read. `compact` keeps the newest row of each name, sorted by name.
    """

    def __init__(self, folder: Path, file: str = FILE, check: Callable[[Row], Row] | None = None) -> None:
        """Read an existing log.

        Args:
            folder: the output folder.
            file: name of the log; ``predictions.jsonl`` by default.
            check: returns a valid row, or raises FormatError or UnsafeNameError; by default a check of predictions.

        Raises:
            ResultLogError: the file exists and is not such a log.
        """
        self.path = safe_output_path(folder, file, "the list of results")
        self._check = check or _checked
        self.rows: dict[str, Row] = {}
        self._incomplete = False  # the file ends in an incomplete line: nothing may be appended to it
        self._compacted = True  # the file is what `compact` would write
        text = self.path.read_text("utf-8", errors="replace") if self.path.exists() else ""
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._read_line(line, number, last=number == len(lines))
        self._compacted &= not self._incomplete and list(self.rows) == sorted(self.rows)

    def _read_line(self, line: str, number: int, last: bool) -> None:
        """Read one line; the last one has no line end, because a kill interrupted its writing."""
        self._incomplete = last
        try:
            row = self._check(parse_object(line, "a row"))
        except (FormatError, UnsafeNameError) as error:
            if last:
                return
            where = f"{escape(self.path)}, line {number}, is not a row of results"
            raise ResultLogError(f"{where} ({error}); move the file away") from None
        name = row["name"]
        self._compacted &= name not in self.rows
        self.rows[name] = row

    def put(self, row: Row) -> None:
        """Append a row, which replaces an earlier one of the same name.

        Raises:
            OSError: it cannot be written.
        """
        line = to_json(row)
        if self._incomplete:
            self.compact()
        append_line(self.path, line)
        self.rows[str(row["name"])] = row
        self._compacted = False

    def compact(self) -> None:
        """Rewrite the file atomically with one row per name, sorted by name."""
        if self._compacted:
            return
        self._incomplete, self._compacted = False, True
        self.rows = dict(sorted(self.rows.items()))
        lines = [to_json(row) + "\n" for row in self.rows.values()]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(lines), "utf-8", newline="\n")


def _checked(row: Row) -> Row:
    """The row, if every entry that is read has its type; otherwise FormatError or UnsafeNameError."""
    if row.get("schema") != SCHEMA:
        raise FormatError(f"its schema is not {SCHEMA}")
    check_types(row, {"name": str, "input": str, "status": str, "tasks": dict}, "the row")
    check_types(row, {"input_sha256": str | None, "size": list | None}, "the row")
    writing = row.get("writing", [])
    if not (isinstance(writing, list) and all(isinstance(name, str) for name in writing)):
        raise FormatError("its 'writing' is not a list of names")
    size = row["size"]
    if size is not None and not (len(size) == 2 and all(isinstance(n, int) for n in size)):
        raise FormatError("its size is not [height, width]")
    for task, entry in row["tasks"].items():
        if not isinstance(entry, dict):
            raise FormatError(f"its task {quoted(task)} is not an object")
        check_types(
            entry, {"files": dict, "settings": dict, "seconds": int | float}, f"the task {quoted(task)}"
        )
        for kind, file in entry["files"].items():
            if not isinstance(file, dict):
                raise FormatError(f"its file {quoted(kind)} is not an object")
            check_types(file, {"path": str, "bytes": int, "sha256": str}, f"the file {quoted(kind)}")
            check_name(file["path"], "the path", nested=True, portable=False)
    return row


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Lock an output folder for this process.

    The system releases the lock when the process ends. On Windows, which has no such locks, nothing is locked.

    Raises:
        ResultLogError: another process has locked it.
    """
    error = f"another twofold writes to {escape(folder)}; wait for it, or choose another --out"
    with file_lock(folder, busy=ResultLogError(error)):
        yield
