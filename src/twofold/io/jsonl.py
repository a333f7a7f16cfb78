"""JSONL logs: one JSON object on each line, appended durably."""

from __future__ import annotations

import os

from twofold.io.disk import report_disk_full


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Appends a line (without its newline) to a text file and syncs it. A kill truncates at most this line.

    DiskFullError when there is no space for it.
    """
    with report_disk_full(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
