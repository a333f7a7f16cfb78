"""Benchmarks and the protocols that score them: a file for each kind of target, which `_MODULES` lists.

`twofold.data.convert` converts their data. A record whose change changes a score gets another version: tests compare
the fingerprints of released records.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

from ...named_code import find_object, names_code
from ...suggest import unknown
from ..protocol import EvalProtocol, EvaluationError
from .benchmark import Benchmark as Benchmark

T = TypeVar("T")

# Modules of this package that define the tuples PROTOCOLS and BENCHMARKS.
_MODULE_NAMES = (
    "depth",
    "normals",
    "dichotomous",
    "matting",
    "segmentation",
    "keypoints",
    "multitask",
)
_MODULES = tuple(import_module(f"{__name__}.{name}") for name in _MODULE_NAMES)

BENCHMARKS: dict[str, Benchmark] = {b.name: b for module in _MODULES for b in module.BENCHMARKS}
EVAL_PROTOCOLS: dict[str, EvalProtocol] = {p.name: p for module in _MODULES for p in module.PROTOCOLS}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name or id (``name@version``), or the user's own as ``package.module:NAME``.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    return _find(name, "benchmark", BENCHMARKS, Benchmark)


def get_eval_protocol(name: str, trusted: bool = True) -> EvalProtocol:
    """The protocol of that name or id (``name@version``), or the user's own as ``package.module:NAME``.

    Args:
        name: name or id.
        trusted: whether ``package.module:NAME`` may import code; False for a name that was read from a file.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    return _find(name, "protocol", EVAL_PROTOCOLS, EvalProtocol, trusted)


def _find(name: str, kind: str, table: Mapping[str, T], expected: type[T], trusted: bool = True) -> T:
    """The benchmark or protocol of that name or id, or the user's own; see `get_benchmark`."""
    if names_code(name):
        try:
            return find_object(name, kind, expected, trusted, f"pass it as --{kind} {name}")
        except ValueError as error:
            raise EvaluationError(str(error)) from None
    plain, _, version = name.partition("@")
    if plain not in table:
        raise EvaluationError(f"{unknown(kind, name, table)}; or package.module:NAME")
    record: Any = table[plain]
    if version and version != str(record.version):
        raise EvaluationError(
            f"{name} is not in this release, which has {record.id}; install one that has it"
        )
    return record
