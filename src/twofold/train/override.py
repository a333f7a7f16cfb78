"""``KEY=VALUE`` of a command line, and where in a recipe it goes."""

from __future__ import annotations

import json
from typing import Any


def read_value(text: str) -> Any:
    """The value of ``KEY=VALUE``: JSON, or plain text where it is not."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def put_value(place: Any, keys: list[str], value: Any) -> None:
    """Put a value where ``keys`` lead, through lists and objects; objects are made where there are none.

    Raises:
        ValueError: there is no such place.
    """
    name, *rest = keys
    if isinstance(place, dict):
        if not rest:
            place[name] = value
        else:
            if place.get(name) is None:
                place[name] = {}
            put_value(place[name], rest, value)
    elif isinstance(place, list) and name.isdigit() and int(name) < len(place):
        if not rest:
            place[int(name)] = value
        else:
            put_value(place[int(name)], rest, value)
    else:
        raise ValueError(f"there is no {name!r} inside {place!r}")
