"""Reading of untrusted JSON, and detection of a replaced output folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.io.text import quoted


class FormatError(ValueError):
    """Text is not the expected JSON. The message is one line: the place and the problem."""


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse untrusted JSON text. FormatError, beginning with `where`, for anything that is not JSON.

    That includes bytes that are not UTF-8, too deep nesting and too long numbers.
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
    """FormatError for the first entry of `value` that is missing or not an instance of its type in `types`.

    Keys with dots refer to nested objects: "data.name". A bool is not a number.
    """
    for key, wanted in types.items():
        found: Any = value
        for part in key.split("."):
            found = found.get(part, ...) if isinstance(found, dict) else ...
        _check_type(found, wanted, f"{what}: {key!r}")


def check_values(values: Mapping[str, Any], wanted: Any, what: str) -> None:
    """FormatError for the first of `values` that is not an instance of the type `wanted`."""
    for key, found in values.items():
        _check_type(found, wanted, f"{what}: {quoted(key)}")


def _check_type(found: Any, wanted: Any, what: str) -> None:
    if not isinstance(found, wanted) or (isinstance(found, bool) and wanted is not bool):
        kind = "missing" if found is ... else type(found).__name__
        raise FormatError(f"{what} is {kind}; expected {_type_names(wanted)}")


_TYPE_NAMES = {
    str: "text",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "a bool",
}


def _type_names(types: Any) -> str:
    several = getattr(types, "__args__", (types,))
    return " or ".join(dict.fromkeys(_TYPE_NAMES.get(t, "null") for t in several))


class OutputFolder:
    """An output folder, identified by device and inode.

    Libraries create missing folders, so a folder deleted during a run would reappear with the later results only.
    `check` detects this.
    """

    def __init__(self, path: Path) -> None:
        """`path` is an existing folder."""
        self.path = path
        self._identity = self._now()

    def _now(self) -> tuple[int, int]:
        state = os.stat(self.path)
        return state.st_dev, state.st_ino

    def check(self) -> None:
        """OSError (ENOENT) when the folder was deleted or replaced."""
        try:
            same = self._now() == self._identity
        except OSError:
            same = False
        if not same:
            reason = "the folder was deleted or replaced while results were written to it"
            raise OSError(errno.ENOENT, reason, str(self.path))
