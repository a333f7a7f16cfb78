"""Names of class ids in the header of a data folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(header: Mapping[str, Any]) -> dict[int, str]:
    """Class names of the target ``semantic`` by id; empty if the header has none.

    ``classes`` is a list in the order of ids, an object of ids by name (rendered scenes) or of names by id, or an
    object that has one of these as ``semantic``.

    Raises:
        ValueError: ``classes`` has another form.
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
        "'classes' in dataset.json is neither a list of names nor an object of ids by name; fix it"
    )
