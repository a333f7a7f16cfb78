"""The one way the library writes a file: whole, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from twofold.io import report_disk_full

# Seconds after which a temporary file of another host is taken for a leftover.
_LEFTOVER_AGE = 24 * 3600


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """Gives a temporary path beside `path` (same suffix) to write to; it becomes `path` when the block ends.

    A reader sees the old file or the new one, never half of it. When the block raises, or writes nothing,
    `path` is untouched and nothing is left behind. The folder must exist (FileNotFoundError).

    DiskFullError when there is no space for it, whatever the library that writes it raises.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder, so {path.name} cannot be written there")
    # In the same folder, because a rename is only atomic within one file system.
    temporary = path.with_name(f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        # While the part that was written still takes its space.
        with report_disk_full(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | os.PathLike[str]) -> Generator[Path]:
    """`atomic_write` for a folder: gives a path beside it, `<name>.partial`, that becomes `folder` at the end.

    The block makes the folder. `folder` must not exist.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with report_disk_full(folder):
            yield partial
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Adds a line (without its end) to a text file, flushed to the disk. A kill costs at most the end of the line.

    DiskFullError when there is no space for it.
    """
    with report_disk_full(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Deletes what the `atomic_write`s of killed processes left in `folder`.

    Whether a process lives is known of this host only. On storage that hosts share, files of other hosts are deleted a
    day after their last change; nothing takes that long between two writes to one file.
    """
    for path in Path(folder).glob(".tmp-*-*"):
        _, host, *rest = path.name.split("-")
        pid = rest[0] if rest else ""
        # Elsewhere than on POSIX nothing tells harmlessly whether a process lives.
        own = os.name == "posix" and host == _host() and pid.isdigit()
        if _dead(int(pid)) if own else _older(path, _LEFTOVER_AGE):
            path.unlink(missing_ok=True)


def _host() -> str:
    """This host's name as a part of file names, without "-"."""
    return re.sub(r"\W", "_", socket.gethostname())[:64] or "host"


def _older(path: Path, seconds: float) -> bool:
    """Whether a file was last changed so long ago; False where it is gone."""
    try:
        return time.time() - path.stat().st_mtime > seconds
    except OSError:
        return False


def _dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


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
