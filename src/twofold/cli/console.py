"""What the commands share: how they stop, and how they speak to people and to programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from twofold.io import escape, to_json

# Documented in `twofold --help` and docs/predict.md.
OK, SOME_FAILED, NOTHING_STARTED, INTERRUPTED = 0, 1, 2, 130


class Stop(Exception):
    """Ends a command with one line and an exit code."""

    def __init__(self, message: str, code: int = NOTHING_STARTED) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """One line to standard error. What is not printable in it is escaped."""
    print(f"twofold: {escape(' '.join(message.split()))}", file=sys.stderr)


def emit(record: dict[str, Any]) -> None:
    """One JSON object on one line of standard output, at once, so that a program can follow."""
    print(to_json(record, allow_nan=True), flush=True)


def track(records: Iterable[Any], total: int, what: str, quiet: bool = False) -> Iterator[Any]:
    """The records as they come, with a progress bar when a person is watching."""
    if quiet or not sys.stderr.isatty():
        yield from records
        return
    from tqdm import tqdm

    # At its next line tqdm makes room for what is printed in between, through `line`.
    yield from tqdm(records, total=total, desc=escape(what), unit="", file=sys.stderr, leave=False)


def line(text: str) -> None:
    """One line for a person, above a progress bar if there is one. What is not printable in it is escaped."""
    from tqdm import tqdm

    tqdm.write(escape(text), file=sys.stdout)
    sys.stdout.flush()


def size_pair(text: str) -> tuple[int, int]:
    """'256x192' (width x height) as (height, width). Stop for anything else."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise Stop(f"--size {text!r} is not WIDTHxHEIGHT, for example 256x192")
    return int(height), int(width)


def one_of(option: str, value: str, choices: Iterable[str]) -> str:
    """`value` if it is among `choices`, else Stop with the choices."""
    choices = list(choices)
    if value not in choices:
        raise Stop(f"{option} {value!r} is unknown; choose {', '.join(choices[:-1])} or {choices[-1]}")
    return value


def device_of(device: str) -> str:
    """The device by `environment.resolve_device`; Stop for an unknown or missing one."""
    from twofold.environment import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise Stop(f"--device {device}: {error}") from error


def dtype_of(dtype: str) -> str:
    """The name in torch of a type of weights, by `environment.resolve_dtype`; Stop for anything else."""
    from twofold.environment import DTYPES

    if dtype not in DTYPES:
        one_of("--dtype", dtype, ("float32", "bfloat16", "float16"))
    return DTYPES[dtype]
