"""Detection of full disks in errors of any library, and a message with the file and the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from twofold.io.text import escape

# No space, no quota, and a file larger than the file system or the process may write (`ulimit -f`).
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Texts of library errors without an errno: the system's message (h5py, safetensors) and Rust's error number.
_MESSAGES = {number: (os.strerror(number), f"(os error {number})") for number in _NUMBERS}
# Short writes (numpy, torch), which for files have no other cause.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written|PytorchStreamWriter failed writing")
# Bytes written to probe for space.
_SPARE = 1 << 20


class DiskFullError(OSError):
    """There is no space for a file. ``errno`` is ENOSPC, EDQUOT or EFBIG, ``filename`` the file.

    The text is one line: the file, the disk and what to do. What was written before is kept.
    """

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def report_disk_full(path: str | os.PathLike[str]) -> Generator[None]:
    """Context for writing ``path``, a file or a folder.

    Raises:
        DiskFullError: the block failed because the disk is full. Other errors are raised unchanged.
    """
    try:
        yield
    except Exception as error:
        full = as_disk_full(error, path)
        if full is None or full is error:
            raise
        raise full from error


def as_disk_full(error: BaseException, path: str | os.PathLike[str]) -> DiskFullError | None:
    """``error`` as a DiskFullError with ``path``; None if it has another reason.

    If the error does not state its reason, 1 MiB is written beside ``path`` to find out (and deleted).
    """
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, DiskFullError):
            return one
    number = next(filter(None, map(_stated, chain)), 0)
    if not number and any(map(_without_reason, chain)):
        short = any(_SHORT_WRITE.search(str(one)) for one in chain)
        number = _probe(Path(path)) or (errno.ENOSPC if short else 0)
    return DiskFullError(number, _message(Path(path), number), os.fspath(path)) if number else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: torch and zipfile wrap the system's errors."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _stated(error: BaseException) -> int:
    """The errno of a full disk in an error's number or message; 0 if there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _NUMBERS else 0
    text = str(error)
    return next((n for n, parts in _MESSAGES.items() if any(part in text for part in parts)), 0)


def _without_reason(error: BaseException) -> bool:
    """Whether an error without a stated reason may come from a write (Pillow, OpenCV, torch, safetensors)."""
    return type(error) in (OSError, RuntimeError) or type(error).__module__.startswith(
        ("safetensors", "cv2", "zipfile")
    )


def _probe(path: Path) -> int:
    """Write beside ``path`` and return the errno of a full disk; 0 if there is space."""
    try:
        with tempfile.TemporaryFile(dir=_existing(path)) as file:
            file.write(bytes(_SPARE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in _NUMBERS else 0
    return 0


def _existing(path: Path) -> Path:
    """The nearest folder above ``path`` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _message(path: Path, number: int) -> str:
    folder = _existing(path)
    disk = next(f for f in (folder, *folder.parents) if os.path.ismount(f) or f == f.parent)
    usage = shutil.disk_usage(folder)
    return (
        f"{escape(path)} cannot be written: {os.strerror(number)} (disk {escape(disk)}, {_size(usage.free)} free of "
        f"{_size(usage.total)}); what was saved before is complete. Free some space and run the same command again"
    )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
