"""Output folders: nothing is written among files of somebody else's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from twofold.io.atomic import is_temporary
from twofold.io.text import escape


def check_own_folder(folder: str | os.PathLike[str], markers: Iterable[str]) -> None:
    """Check that a folder is new, empty, or one that this library began.

    Args:
        folder: where output is going to be written.
        markers: names of files or folders of which a folder begun by this library has at least one.

    Raises:
        FileExistsError: it holds other files, and none of the markers.
    """
    folder = Path(folder)
    names = [name for name in os.listdir(folder) if not is_temporary(name)] if folder.is_dir() else []
    if names and not set(names) & set(markers):
        raise FileExistsError(
            errno.EEXIST,
            f"the folder holds other files ({escape(min(names))}), which output could replace; choose a new folder",
            str(folder),
        )
