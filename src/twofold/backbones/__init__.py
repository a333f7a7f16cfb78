"""Diffusion models with a common interface, `Backbone`."""

from ..named_code import find_object
from .backbone import Backbone as Backbone, Output as Output


def make_backbone(name: str, trusted: bool = True) -> Backbone:
    """Make a user-defined backbone by calling a class or function without arguments.

    Args:
        name: name of the class or function, ``package.module:make``.
        trusted: whether the user passed the name; a name from a file imports no module, see `named_code`.

    Raises:
        ValueError: there is no such object, or it does not return a `Backbone`. Errors of the call are not caught.
    """
    make = find_object(name, "backbone", object, trusted, f"import {name.partition(':')[0]} first")
    backbone = make() if callable(make) else make
    if not isinstance(backbone, Backbone):
        raise ValueError(f"{name} returned {type(backbone).__name__}; expected a twofold.backbones.Backbone")
    return backbone
