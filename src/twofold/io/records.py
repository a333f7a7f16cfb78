"""Records that are read back: JSON of any origin, and the folder that a run writes them to."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.io.text import quoted


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


def check_types(value: Mapping[str, Any], types: Mapping[str, Any], what: str) -> None:
    """FormatError for the first entry of `value` that is missing or not an instance of the type given for it.

    Keys with dots are those of objects within: "data.name". A bool is no number.
    """
    for key, wanted in types.items():
        found: Any = value
        for part in key.split("."):
            found = found.get(part, ...) if isinstance(found, dict) else ...
        _check_type(found, wanted, f"{what}: {key!r}")


def check_values(values: Mapping[str, Any], wanted: Any, what: str) -> None:
    """FormatError for the first of `values` that is not an instance of the type `wanted`, whatever its key is."""
    for key, found in values.items():
        _check_type(found, wanted, f"{what}: {quoted(key)}")


def _check_type(found: Any, wanted: Any, what: str) -> None:
    if not isinstance(found, wanted) or (isinstance(found, bool) and wanted is not bool):
        kind = "missing" if found is ... else type(found).__name__
        raise FormatError(f"{what} is {kind}; it must be {_in_words(wanted)}")


_WORDS = {
    str: "text",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "a bool",
}


def _in_words(types: Any) -> str:
    several = getattr(types, "__args__", (types,))
    return " or ".join(dict.fromkeys(_WORDS.get(t, "null") for t in several))


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
