"""Benchmarks and the protocols they are scored by: one file for a family of both, and one line in `_MODULES`.

Their data is converted by `twofold.data.convert`. A record that changes a number gets another version: tests compare
the fingerprints of released records.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...named_code import find_object, names_code
from ...suggest import unknown
from ..protocol import EvalProtocol, EvaluationError
from .benchmark import Benchmark as Benchmark

# Each has the tuples PROTOCOLS and BENCHMARKS.
_MODULES = (
    "depth",
    "normals",
    "dichotomous",
    "matting",
    "segmentation",
    "keypoints",
    "multitask",
)
_FOUND = tuple(import_module(f"{__name__}.{module}") for module in _MODULES)

BENCHMARKS: dict[str, Benchmark] = {b.name: b for module in _FOUND for b in module.BENCHMARKS}
EVAL_PROTOCOLS: dict[str, EvalProtocol] = {p.name: p for module in _FOUND for p in module.PROTOCOLS}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name or id (``name@version``), or the user's own as ``package.module:NAME``.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    if names_code(name):
        return _find_own(name, "benchmark", Benchmark, trusted=True)
    plain, _, version = name.partition("@")
    if plain not in BENCHMARKS:
        raise EvaluationError(f"{unknown('benchmark', name, BENCHMARKS)}; or package.module:NAME")
    found = BENCHMARKS[plain]
    if version and version != str(found.version):
        raise EvaluationError(f"{name} is not in this release, which has {found.id}; install one that has it")
    return found


def get_eval_protocol(name: str, trusted: bool = True) -> EvalProtocol:
    """The protocol of that name or id (``name@version``), or the user's own as ``package.module:NAME``.

    Args:
        name: see above.
        trusted: whether the user passed the name; one that was read from a file imports no module.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    if names_code(name):
        return _find_own(name, "protocol", EvalProtocol, trusted)
    plain, _, version = name.partition("@")
    if plain not in EVAL_PROTOCOLS:
        raise EvaluationError(f"{unknown('protocol', name, EVAL_PROTOCOLS)}; or package.module:NAME")
    found = EVAL_PROTOCOLS[plain]
    if version and version != str(found.version):
        raise EvaluationError(f"{name} is not in this release, which has {found.id}; install one that has it")
    return found


def _find_own(name: str, kind: str, expected: Any, trusted: bool) -> Any:
    """The user's own object; EvaluationError where there is none, or it is something else."""
    try:
        found = find_object(name, kind, trusted, f"pass it as --{kind} {name}")
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    if not isinstance(found, expected):
        raise EvaluationError(f"{name} is no {expected.__name__}; define one there")
    return found
