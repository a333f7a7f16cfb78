"""A full disk, said so that a person knows what is kept and what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a disk has to have free for a failed write to have another reason, in bytes.
SPARE = 1 << 20


@contextmanager
def room(path: Path) -> Generator[None]:
    """Around writing ``path``: an error for want of room says what is kept.

    Raises:
        OSError: there is no room; what the body raises otherwise.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if _full(error, path):
            raise OSError(
                getattr(error, "errno", None) or errno.ENOSPC,
                "no room left to write this; what was saved before is whole: free some space and run the same command",
                str(path),
            ) from error
        raise


def _full(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    # torch tells of a file's error as the context of its own, safetensors in words.
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno in FULL:
        return True
    if any(f"(os error {number})" in str(error) for number in FULL):
        return True
    return path.parent.exists() and shutil.disk_usage(path.parent).free < SPARE
