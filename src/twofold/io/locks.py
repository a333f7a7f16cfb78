"""Advisory locks of files and folders, between processes."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def file_lock(
    path: str | os.PathLike[str], shared: bool = False, busy: Exception | None = None
) -> Generator[None]:
    """Locks a file or folder, which exists, until the block ends or the process does.

    Args:
        path: what is locked.
        shared: whether other processes may hold a shared lock at the same time.
        busy: raised when another process holds the lock; without it, this process waits.

    Where the system has no such locks (Windows, some network file systems), nothing is locked.
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
