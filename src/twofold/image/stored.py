"""Files, and members of tar files, which are named `x.tar::a/b.png`.

Tars are read in place: only regular files in them are read, links are not followed, and the index of members is built
once per process (some seconds for 100,000 members; unpack archives that are read often).
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
# Larger files are not read into memory.
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class Stored:
    """A byte range: `size` bytes of `path` from `offset` on; `name` is used in messages."""

    path: Path
    name: str
    offset: int
    size: int
    member: bool

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return posixpath.splitext(self.name)[1].lower()

    def read(self) -> bytes:
        """All bytes; ImageError when there are more than 1 GiB."""
        if self.size > _MOST_BYTES:
            raise ImageError(
                f"{self.name} has {self.size} bytes, too many to read at once; unpack it, or make it smaller"
            )
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def open(self) -> BinaryIO:
        """A seekable file."""
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
    """The normalized name of a member: without the leading `./` of most tars."""
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
            # The last member of a name counts, as when the archive is unpacked.
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
