"""JSONL logs: one JSON object on each line, appended durably."""

from __future__ import annotations

import os
from pathlib import Path

from twofold.io.disk import report_disk_full


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append a line (without its newline) to a text file and sync it. A kill truncates at most this line.

    DiskFullError when there is no space for it.
    """
    with report_disk_full(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def truncate_partial_line(path: str | os.PathLike[str]) -> int:
    """Remove a partial last line, left by a killed process, and return the remaining number of bytes."""
    size = Path(path).read_bytes().rfind(b"\n") + 1
    os.truncate(path, size)
    return size


def complete_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file without their newlines, and without a partial last line, left by a killed process."""
    return Path(path).read_text("utf-8", errors="replace").split("\n")[:-1]
