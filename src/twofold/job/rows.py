"""`predictions.jsonl`: one row a picture, true at every moment, whoever kills whom."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twofold.image import atomic_write
from twofold.image.files import held
from twofold.image.pictures import shown
from twofold.io import to_json

FILE = "predictions.jsonl"
SCHEMA = "twofold-predictions/1"

Row = dict[str, Any]


class LedgerError(ValueError):
    """The rows of an output folder cannot be used. One line: which file, what is wrong, and the way out."""


class Ledger:
    """The rows of one output folder, by the name of the picture.

    Rows are appended, each flushed to the disk, so that a kill costs at most the line being written; such a
    torn last line is dropped when the file is read. `compact` then leaves the newest row of every name, in
    order of name.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what is there. LedgerError when the file is something else."""
        self.path = folder / FILE
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
            row = json.loads(line)
            if row["schema"] != SCHEMA or not isinstance(row["tasks"], dict):
                raise KeyError("schema")
            name = str(row["name"])
        except (ValueError, KeyError, TypeError):
            if last:
                return
            error = f"{shown(self.path)}, line {number}, is not a row of predictions; move the file away"
            raise LedgerError(error) from None
        self._untidy |= name in self.rows
        self.rows[name] = row

    def put(self, row: Row) -> None:
        """Adds a row, or replaces that of the same name. OSError when the disk does not take it."""
        line = to_json(row) + "\n"
        if self._torn:
            self.compact()
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
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


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Holds an output folder for this process. LedgerError when another process holds it.

    The system lets go of it when the process ends, however it ends. Where it has no such locks (Windows),
    nothing is held.
    """
    error = f"another twofold writes to {shown(folder)}; wait for it, or choose another --out"
    with held(folder, busy=LedgerError(error)):
        yield
