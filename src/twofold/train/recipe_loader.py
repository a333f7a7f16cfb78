"""Recipes in files of Python: functions that return one, and need nothing for it."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .recipe import Recipe

_NAME = "<recipes>"
_PACKAGE = Path(__file__).parents[1]


def shipped() -> Path | None:
    """The folder of the recipes that come with twofold: in the installed package, or beside ``src`` in a clone."""
    folders = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
    return next((f for f in folders if (f / "genpercept.py").is_file()), None)


def find_file(text: str) -> Path | None:
    """The recipe file that ``text`` names, or None.

    It is looked for as a path, then by name in ``./recipes``, then among those that come with twofold, also where it is
    written as in a clone: ``recipes/table4.py`` or ``table4``.
    """
    there = shipped()
    places = [Path("recipes"), *([there] if there else [])]
    path = Path(text)
    found = [path, *(place / f"{text}{suffix}" for place in places for suffix in (".py", ".json"))]
    if there and path.parent == Path("recipes"):
        found.append(there / path.name)
    return next((p for p in found if p.is_file()), None)


def known_names() -> list[str]:
    """Names of the recipe files in ``./recipes`` and of those that come with twofold, sorted."""
    places = (Path("recipes"), shipped())
    return sorted(
        {p.stem for place in places if place for p in place.glob("[!_]*.*") if p.suffix in (".py", ".json")}
    )


def defined(path: Path) -> dict[str, Any]:
    """What a file of recipes defines. It may import its neighbours, as any program may.

    A recipe is a program of the user's own, named by the user: running it is what is asked.

    Raises:
        SyntaxError: it is not Python; otherwise whatever it raises.
    """
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        return runpy.run_path(str(path), run_name=_NAME)
    finally:
        sys.path.remove(beside)


def takes_no_arguments(function: Any) -> bool:
    """Whether something can be called without arguments."""
    if not callable(function):
        return False
    asked = inspect.signature(function).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in asked)


def recipes(path: Path) -> dict[str, Callable[[], Recipe]]:
    """The recipes of a file by name, in its order: its own functions that need no argument."""
    return {
        name: value
        for name, value in defined(path).items()
        if inspect.isfunction(value)
        and value.__module__ == _NAME
        and not name.startswith("_")
        and takes_no_arguments(value)
    }
