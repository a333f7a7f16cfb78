"""Recipe files in Python: functions without required arguments that return a `Recipe`."""

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


def shipped_folder() -> Path | None:
    """The folder of the recipes that come with twofold: in the installed package, or beside ``src`` in a clone."""
    folders = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
    return next((f for f in folders if (f / "genpercept.py").is_file()), None)


def find_file(text: str) -> Path | None:
    """The recipe file that ``text`` names, or None.

    Searched as a path, then by name in ``./recipes``, then among the recipes that come with twofold, by name or as a
    path in a clone: ``table4`` or ``recipes/table4.py``.
    """
    shipped = shipped_folder()
    folders = [Path("recipes"), *([shipped] if shipped else [])]
    path = Path(text)
    found = [path, *(folder / f"{text}{suffix}" for folder in folders for suffix in (".py", ".json"))]
    if shipped and path.parent == Path("recipes"):
        found.append(shipped / path.name)
    return next((p for p in found if p.is_file()), None)


def known_names() -> list[str]:
    """Names of the recipe files in ``./recipes`` and of those that come with twofold, sorted."""
    folders = (Path("recipes"), shipped_folder())
    return sorted({p.stem for f in folders if f for p in f.glob("[!_]*.*") if p.suffix in (".py", ".json")})


def run_file(path: Path) -> dict[str, Any]:
    """Run a recipe file, which the user named, and return its global names; it may import files of its folder.

    Raises:
        SyntaxError: it is not Python; otherwise whatever it raises.
    """
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(path), run_name=_NAME)
    finally:
        sys.path.remove(folder)


def takes_no_arguments(function: Any) -> bool:
    """Whether ``function`` can be called without arguments."""
    if not callable(function):
        return False
    parameters = inspect.signature(function).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def recipes(path: Path) -> dict[str, Callable[[], Recipe]]:
    """The recipes of a file by name, in its order: its public functions without required arguments."""
    return {
        name: value
        for name, value in run_file(path).items()
        if inspect.isfunction(value)
        and value.__module__ == _NAME
        and not name.startswith("_")
        and takes_no_arguments(value)
    }
