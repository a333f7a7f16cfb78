"""Diffusion models behind one contract."""

from ..named_code import find_object
from .backbone import Backbone, Output


def make_backbone(name: str, trusted: bool = True) -> Backbone:
    """The backbone that ``package.module:make`` returns, a class or a function of the user's own without arguments.

    Args:
        name: of the class or function.
        trusted: whether the user passed the name; a name from a file imports no module, see `named_code`.

    Raises:
        ValueError: no such object, or it makes no `Backbone`; otherwise whatever it raises.
    """
    make = find_object(name, "backbone", trusted, f"import {name.partition(':')[0]} first")
    backbone = make() if callable(make) else make
    if not isinstance(backbone, Backbone):
        raise ValueError(f"{name} gives {type(backbone).__name__}; expected a twofold.backbones.Backbone")
    return backbone


__all__ = ["Backbone", "Output", "make_backbone"]
