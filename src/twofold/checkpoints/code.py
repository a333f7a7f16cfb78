"""Code of the user's own, by the name that the user gives it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn


def made(network: str | Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """The network that ``network`` makes with ``options``: code of the user's own, named by the user.

    Raises:
        ValueError: there is no such code, or it makes no network; otherwise whatever it raises.
    """
    if not isinstance(network, str):
        found = network(**options)
    else:
        where, _, name = network.rpartition(":")
        if not where or not name:
            raise ValueError(f"{network!r} names no network; write package.module:make or file.py:make")
        with _beside(where):
            module = _file(Path(where)) if where.endswith(".py") else _module(where)
            if not hasattr(module, name):
                raise ValueError(f"{where} has no {name!r} that makes a network")
            make = getattr(module, name)
            if not _makes_networks(make):
                raise ValueError(
                    f"{network} is neither a class of networks nor a function that says that it makes one: "
                    f"def {name}(...) -> nn.Module"
                )
            found = make(**options)
    if not isinstance(found, nn.Module):
        raise ValueError(f"{network} makes a {type(found).__name__}, not a torch.nn.Module")
    return found


def _makes_networks(make: Any) -> bool:
    """Whether something says that it makes networks: names in a file must not call whatever they like."""
    if not isinstance(make, type):
        try:
            make = get_type_hints(make).get("return")
        except (NameError, TypeError):
            return False
    return isinstance(make, type) and issubclass(make, nn.Module)


@contextmanager
def _beside(where: str) -> Generator[None]:
    """Inside, the neighbours of a file can be imported, as any program's can."""
    path = str(Path(where).resolve().parent) if where.endswith(".py") else ""
    if path:
        sys.path.insert(0, path)
    try:
        yield
    finally:
        if path:
            sys.path.remove(path)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise  # something that it imports itself
        raise ValueError(
            f"there is no module {name!r} to import; put its folder on PYTHONPATH, or name a file, {name}.py:make"
        ) from error


def _file(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; a network is named package.module:make or file.py:make")
    name = f"_network_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
