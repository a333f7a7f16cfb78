"""Atomic writes: a file or folder is either complete or absent."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from twofold.io.disk import report_disk_full

# Age in seconds after which a temporary file of another host is deleted.
_LEFTOVER_AGE = 24 * 3600
# Names of `_temporary`; other files are never deleted.
_TEMPORARY = re.compile(r"\.tmp-(?P<host>\w+)-(?P<pid>\d+)-[0-9a-f]{8}(\.[^.]*)?", re.ASCII)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path` (same suffix) to write to; it is renamed to `path` when the block ends.

    Readers get the old file or the new one, never a part. When the block raises, or writes nothing, `path` is unchanged
    and the temporary file is deleted.

    Raises:
        FileNotFoundError: the folder does not exist.
        DiskFullError: there is no space for the file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder, so {path.name} cannot be written there")
    # In the same folder, because a rename is only atomic within one file system.
    temporary = _temporary(path, path.suffix)
    try:
        # Inside, because the probe for space needs the partial file to exist.
        with report_disk_full(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | os.PathLike[str]) -> Generator[Path]:
    """`atomic_write` for a folder: yields a path beside it that becomes `folder` at the end.

    The block creates the folder, and its parents where they are missing. `folder` must not exist.
    """
    folder = Path(folder)
    if folder.parent.is_dir():
        remove_leftovers(folder.parent)
    partial = _temporary(folder)
    try:
        with report_disk_full(folder):
            yield partial
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files and folders that killed processes of this library left in `folder`.

    Only processes of this host can be checked. On shared storage, files of other hosts are deleted a day after their
    last change.
    """
    for path in Path(folder).glob(".tmp-*-*"):
        named = _TEMPORARY.fullmatch(path.name)
        if named is None:
            continue  # of another program, or of a person
        # Only POSIX has a harmless check whether a process runs.
        own = os.name == "posix" and named["host"] == host_name()
        if _dead(int(named["pid"])) if own else _older(path, _LEFTOVER_AGE):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a name is that of a temporary file or folder of this module."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary(path: Path, suffix: str = "") -> Path:
    """A new name beside `path`."""
    return path.with_name(f".tmp-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def host_name() -> str:
    """This host's name as a part of file names, without "-"."""
    import socket

    return re.sub(r"\W", "_", socket.gethostname())[:64] or "host"


def _older(path: Path, seconds: float) -> bool:
    """Whether a file was last changed more than ``seconds`` ago; False if it is gone."""
    try:
        return time.time() - path.stat().st_mtime > seconds
    except OSError:
        return False


def _dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks that the process exists
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
