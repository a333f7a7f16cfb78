"""Bytes on disk: a file, or a member of a tar file, named `x.tar::a/b.png`.

Tars are read in place, never unpacked: only plain files in them are read, no link is followed, and the list
of members is made once a process (some seconds for 100,000 of them; unpack what is read every day).
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from twofold.image.errors import ImageError, check_file
from twofold.io import escape

MEMBER = "::"  # between a tar file and the name of its member
# Larger ones are not held in memory.
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class Stored:
    """Bytes on disk: `size` of them in `path` from `offset` on; `name` is how messages call them."""

    path: Path
    name: str
    offset: int
    size: int
    member: bool

    @property
    def suffix(self) -> str:
        """The suffix in small letters, with its dot."""
        return posixpath.splitext(self.name)[1].lower()

    def read(self) -> bytes:
        """All of them; ImageError when they are too many to hold."""
        if self.size > _MOST_BYTES:
            raise ImageError(
                f"{self.name} has {self.size} bytes, too many to read at once; unpack it, or make it smaller"
            )
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> BinaryIO:
        """As a file that can seek."""
        return io.BytesIO(self.read()) if self.member else open(self.path, "rb")


def find_stored(path: str | os.PathLike[str]) -> Stored:
    """Location of the bytes of a file, or of `x.tar::member`. ImageError when there are none."""
    text = os.fspath(path)
    tar, mark, member = text.partition(".tar" + MEMBER)
    if not mark or os.path.exists(text):
        file = check_file(path)
        return Stored(file, escape(path), 0, file.stat().st_size, False)
    file = check_file(tar + ".tar")
    found = members(file).get(tidy(member))
    if found is None:
        raise ImageError(
            f"{escape(file)} has no member {tidy(member)!r}; is it the right archive, and complete?"
        )
    return Stored(file, escape(path), *found, True)


def tidy(member: str) -> str:
    """The name of a member as the index has it: without the `./` that most tars begin with."""
    return posixpath.normpath(member).lstrip("/")


def members(tar: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """The plain files of a tar: name -> (offset, size). ImageError for anything but a complete, uncompressed tar."""
    path = check_file(tar)
    state = path.stat()
    return _index(str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)  # a packed data set has hundreds of tars, and is read in any order
def _index(path: str, changed: int, size: int) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(path, "r:") as archive:
            # Of one name the last counts, as when the archive is unpacked.
            found = {
                tidy(item.name): (item.offset_data, item.size)
                for item in archive
                if item.isreg() and not item.issparse()
            }
    except (tarfile.TarError, OSError, ValueError) as error:
        detail = " ".join(str(error).split())[:80]
        raise ImageError(
            f"{escape(path)} is not a complete, uncompressed tar ({detail}); unpack it or download it again"
        ) from None
    torn = next((name for name, (offset, length) in found.items() if offset + length > size), None)
    if torn is not None:
        raise ImageError(f"{escape(path)} is cut short within {torn!r}; download it again")
    return found
