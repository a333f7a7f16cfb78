"""Names of class ids, as the header of a data folder lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(header: Mapping[str, Any]) -> dict[int, str]:
    """Names by id of the target ``semantic``; empty where the header has none.

    ``classes`` is a list in the order of ids, or an object of ids by name (rendered scenes) or of names by id; or an
    object that has one of these as ``semantic``.

    Raises:
        ValueError: it is something else.
    """
    classes = header.get("classes") or {}
    if isinstance(classes, Mapping) and isinstance(classes.get("semantic"), Mapping | list | tuple):
        classes = classes["semantic"]
    if isinstance(classes, list | tuple):
        return {i: str(name) for i, name in enumerate(classes)}
    if isinstance(classes, Mapping):
        if all(isinstance(i, int) for i in classes.values()):
            return {int(i): str(name) for name, i in classes.items()}
        if all(str(i).isdecimal() for i in classes):
            return {int(i): str(name) for i, name in classes.items()}
    raise ValueError(
        "'classes' in the data's header is neither a list of names nor an object of ids by name; correct dataset.json"
    )
