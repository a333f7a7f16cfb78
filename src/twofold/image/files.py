"""The one way the library writes a file: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """Gives a temporary path beside `path` (same suffix) to write to; it becomes `path` when the block ends.

    A reader sees the old file or the new one, never half of it. When the block raises, or writes nothing,
    `path` is untouched and nothing is left behind. The folder must exist (FileNotFoundError).
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder, so {path.name} cannot be written there")
    # In the same folder, because a rename is only atomic within one file system.
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Deletes what the `atomic_write`s of killed processes left in `folder`; those of living ones stay."""
    if os.name != "posix":
        return  # elsewhere nothing tells harmlessly whether a process lives
    for path in Path(folder).glob(".tmp-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not _lives(int(pid)):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@contextmanager
def held(
    path: str | os.PathLike[str], shared: bool = False, busy: Exception | None = None
) -> Generator[None]:
    """Holds a folder or file for this process, or with others that share it, until the block ends or the process does.

    Where another holds it, ``busy`` is raised, or without one this process waits. Where the system has no such locks
    (Windows, some network file systems), nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            assert busy is not None
            raise busy from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
