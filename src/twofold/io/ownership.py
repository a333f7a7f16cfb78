"""Protection of other files: output is written only to new, empty or own folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from twofold.io.atomic import is_temporary
from twofold.io.text import escape


def check_own_folder(folder: str | os.PathLike[str], markers: Iterable[str]) -> None:
    """Check that an output folder is new, empty, or was created by this library.

    Args:
        folder: the output folder.
        markers: names of files or folders, at least one of which is in a folder that this library created.

    Raises:
        FileExistsError: it holds other files and none of the markers.
    """
    folder = Path(folder)
    names = [name for name in os.listdir(folder) if not is_temporary(name)] if folder.is_dir() else []
    if names and not set(names) & set(markers):
        raise FileExistsError(
            errno.EEXIST,
            f"the folder holds other files ({escape(min(names))}), which output could replace; choose a new folder",
            str(folder),
        )
