"""Objects in the user's code, named ``package.module:object``.

A name that the user passes (an option, an argument, a recipe in Python) imports its module. A name that was read from a
file is not trusted: it imports nothing, and only finds objects of modules that have been imported already.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, TypeVar

T = TypeVar("T")


def names_code(name: str) -> bool:
    """Whether ``name`` is of the form ``package.module:object``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(map(str.isidentifier, (*module.split("."), attribute)))


def import_named(module: str, advice: str) -> Any:
    """Import a module.

    Raises:
        ValueError: the module does not exist; ``advice`` ends the message. Import errors inside the module are raised
            unchanged.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that the named one imports
        raise ValueError(f"there is no module {module!r} to import; {advice}") from error


def find_object(name: str, kind: str, expected: type[T], trusted: bool = True, remedy: str = "") -> T:
    """The object of that name.

    Args:
        name: ``package.module:object``.
        expected: its class.
        kind: what the object should be, for messages: ``task``, ``head``.
        trusted: whether the user passed the name; see the module's docstring.
        remedy: what to do about a name that is not trusted, for the message.

    Raises:
        ValueError: no such module or object, an object of another class, or a name that is not trusted and whose module
            is not imported.
    """
    module, _, attribute = name.partition(":")
    if trusted:
        found = import_named(module, f"put its folder on PYTHONPATH to use the {kind} {name!r}")
    elif module in sys.modules:
        found = sys.modules[module]
    else:
        raise ValueError(
            f"{name} is a {kind} in the user's own code, and loading a checkpoint runs no code; if you trust it, "
            f"{remedy}"
        )
    # Not getattr, because a module's __getattr__ may import other modules.
    value = vars(found).get(attribute)
    if isinstance(value, expected):
        return value
    what = "is missing" if value is None else f"is not a {expected.__name__}"
    raise ValueError(f"{name} {what}; define the {kind} there")
