"""Advisory locks of files and folders, between processes."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def file_lock(
    path: str | os.PathLike[str], shared: bool = False, busy: Exception | None = None
) -> Generator[None]:
    """Lock an existing file or folder until the end of the block or of the process.

    Args:
        path: file or folder to lock.
        shared: whether other processes may hold a shared lock at the same time.
        busy: raised when another process holds the lock; without it, wait for the lock.

    Does nothing where such locks are not supported (Windows, some network file systems).
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
