"""Files of a data set in a folder or in the tar it was published in, and its lists and tables."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from twofold.data.layout import FolderError
from twofold.image import ImageError
from twofold.image.stored import MEMBER, find_stored, members


class Tree:
    """The files of a data set, by names relative to its root.

    tar: if the root holds this file, and not the folder `unless`, files are read from it.
    """

    def __init__(self, root: Path, tar: str = "", unless: str = "") -> None:
        self.root = root
        self.tar = tar if tar and (root / tar).is_file() and not (unless and (root / unless).is_dir()) else ""
        try:
            self._names = sorted(members(root / tar)) if self.tar else None
        except ImageError as error:
            raise FolderError(str(error)) from None
        self._known = frozenset(self._names or ())

    def match(self, pattern: str) -> list[str]:
        """The names that match a pattern, where `*` does not match "/", sorted, without hidden files."""
        if self._names is None:
            found = [p for p in self.root.glob(pattern) if p.is_file() and not p.name.startswith(".")]
            return sorted(p.relative_to(self.root).as_posix() for p in found)
        expected = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
        return [n for n in self._names if expected.fullmatch(n) and not n.rpartition("/")[2].startswith(".")]

    def has(self, name: str) -> bool:
        """Whether the file exists."""
        return name in self._known if self.tar else (self.root / name).is_file()

    def path(self, name: str) -> str:
        """The path of a file for a row. FolderError when there is no such file."""
        if not self.has(name):
            raise FolderError(
                f"{self.root / self.row_path(name)} does not exist; restore it, or fix the list"
            )
        return self.row_path(name)

    def row_path(self, name: str) -> str:
        """The path of a name for a row, whether or not the file exists."""
        return f"{self.tar}{MEMBER}./{name}" if self.tar else name

    def open(self, name: str) -> BinaryIO:
        """Open the file for reading. FolderError when there is none."""
        path = self.root / self.path(name)
        return io.BytesIO(find_stored(path).read()) if self.tar else open(path, "rb")


def read_list(root: Path, names: Sequence[str], columns: int) -> list[list[str | None]] | None:
    """The lines of the first existing list file of `names` in `root`, split at spaces; None if there is none.

    The entry "None" (a missing file) becomes None. FolderError for a line with another number of columns (paths in such
    lists have no spaces), and for an empty list.
    """
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        return None
    lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    for number, parts in enumerate(lines, start=1):
        if len(parts) != columns:
            raise FolderError(
                f"{path}:{number} has {len(parts)} columns, not {columns}: {' '.join(parts)[:80]}"
            )
    if not lines:
        raise FolderError(f"{path} is empty; copy or download it again")
    return [[None if part == "None" else part.removeprefix("./") for part in parts] for parts in lines]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; FolderError when it lacks one of the columns."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        missing = [c for c in columns if c not in (table.fieldnames or ())]
        if missing:
            raise FolderError(f"{path} has no column {missing[0]!r}; is it the right file?")
        return list(table)


def replace_suffix(name: str, old: str, new: str) -> str:
    """`name` with its ending `old` replaced; FolderError when it ends in something else."""
    if not name.endswith(old):
        raise FolderError(f"{name!r} does not end in {old!r}; is the list from this data set?")
    return name[: len(name) - len(old)] + new


def intrinsic_matrix(fx: float, fy: float, cx: float, cy: float) -> list[list[float]]:
    """The intrinsic matrix K as nested lists."""
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
