"""Records that are read back: JSON of any origin, and the folder that a run writes them to."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any


class FormatError(ValueError):
    """Text is not the JSON that it should be. One line: where, and what is wrong."""


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of JSON text of any origin. FormatError, beginning with `where`, for anything that is not JSON.

    That includes bytes that are not UTF-8, nesting too deep to be read and numbers too long.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:120]
        raise FormatError(f"{where} is not JSON ({detail})") from None


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """`parse_json` of a JSON object; FormatError for any other value."""
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not a JSON object")
    return value


class OutputFolder:
    """A folder that a run writes to, known by more than its path.

    Libraries make folders that are missing, so that a folder deleted during a run comes back with only the later half
    of the results. `check` notices.
    """

    def __init__(self, path: Path) -> None:
        """The folder `path`, which exists."""
        self.path = path
        self._identity = self._now()

    def _now(self) -> tuple[int, int]:
        state = os.stat(self.path)
        return state.st_dev, state.st_ino

    def check(self) -> None:
        """OSError (ENOENT) when the folder is gone, or another one stands in its place."""
        try:
            same = self._now() == self._identity
        except OSError:
            same = False
        if not same:
            reason = "the folder was deleted or replaced while results were written to it"
            raise OSError(errno.ENOENT, reason, str(self.path))
