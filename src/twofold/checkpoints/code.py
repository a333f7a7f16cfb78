"""Imports and calls user-defined networks, named ``package.module:make`` or ``file.py:make``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from ..named_code import import_named


def instantiate_network(network: str | Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """Call ``network(**options)`` and return the resulting module.

    Args:
        network: a class or function, or the name that the user passes: ``package.module:make``, ``file.py:make``.
        options: keyword arguments.

    Raises:
        ValueError: there is no such object, or it does not return a network. Errors of the call are not caught.
    """
    if not isinstance(network, str):
        module = network(**options)
    else:
        where, _, name = network.rpartition(":")
        if not where or not name:
            raise ValueError(f"{network!r} names no network; write package.module:make or file.py:make")
        with _folder_on_path(where):
            advice = f"put its folder on PYTHONPATH, or name a file, {where}.py:{name}"
            code = _import_file(Path(where)) if where.endswith(".py") else import_named(where, advice)
            if name not in vars(code):
                raise ValueError(f"{where} has no {name!r} that makes a network")
            make = vars(code)[name]
            if not _makes_networks(make):
                raise ValueError(
                    f"{network} is neither an nn.Module class nor a function annotated as returning one: "
                    f"def {name}(...) -> nn.Module"
                )
            module = make(**options)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{network} returns a {type(module).__name__}, not a torch.nn.Module")
    return module


def _makes_networks(make: Any) -> bool:
    """Whether an object is a network class or annotated to return one, so that no other function is called."""
    if not isinstance(make, type):
        try:
            make = get_type_hints(make).get("return")
        except (NameError, TypeError):
            return False
    return isinstance(make, type) and issubclass(make, nn.Module)


@contextmanager
def _folder_on_path(where: str) -> Generator[None]:
    """Context in which the modules in the folder of a file can be imported, as for a script."""
    path = str(Path(where).resolve().parent) if where.endswith(".py") else ""
    if path:
        sys.path.insert(0, path)
    try:
        yield
    finally:
        if path:
            sys.path.remove(path)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; a network is named package.module:make or file.py:make")
    name = f"_network_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # required by dataclasses
    spec.loader.exec_module(module)
    return module
