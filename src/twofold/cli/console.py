"""What the commands share: how they stop, and how they speak to people and to programs."""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from twofold.io import escape, to_json

# Documented in `twofold --help` and docs/predict.md.
OK, SOME_FAILED, NOTHING_STARTED, INTERRUPTED = 0, 1, 2, 130


class CommandError(Exception):
    """Ends a command with one line and an exit code."""

    def __init__(self, message: str, code: int = NOTHING_STARTED) -> None:
        super().__init__(message)
        self.code = code


def print_error(message: str) -> None:
    """One line to standard error. What is not printable in it is escaped."""
    print(f"twofold: {escape(' '.join(message.split()))}", file=sys.stderr)


@contextmanager
def warnings_on_one_line() -> Generator[None]:
    """Inside, warnings of twofold and of a user's own code are lines; those of installed packages are dropped.

    A user cannot act on what libraries say to each other; TWOFOLD_TRACEBACK=1 shows it.
    """
    if os.environ.get("TWOFOLD_TRACEBACK") == "1":
        yield
        return
    own = str(Path(__file__).parents[1])
    others = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        theirs = not filename.startswith(own) and any(filename.startswith(place) for place in others)
        if not theirs and str(message) not in shown:
            shown.add(str(message))
            print_error(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # ty: ignore[invalid-assignment]
        yield


def print_json(record: dict[str, Any]) -> None:
    """One JSON object on one line of standard output, at once, so that a program can follow."""
    print(to_json(record, allow_nan=True), flush=True)


def with_progress(records: Iterable[Any], total: int, what: str, quiet: bool = False) -> Iterator[Any]:
    """The records as they come, with a progress bar when a person is watching."""
    if quiet or not sys.stderr.isatty():
        yield from records
        return
    from tqdm import tqdm

    # At its next line tqdm makes room for what is printed in between, through `line`.
    yield from tqdm(records, total=total, desc=escape(what), unit="", file=sys.stderr, leave=False)


def print_line(text: str) -> None:
    """One line for a person, above a progress bar if there is one. What is not printable in it is escaped."""
    from tqdm import tqdm

    tqdm.write(escape(text), file=sys.stdout)
    sys.stdout.flush()


def parse_size_pair(text: str) -> tuple[int, int]:
    """'256x192' (width x height) as (height, width). CommandError for anything else."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise CommandError(f"--size {text!r} is not WIDTHxHEIGHT, for example 256x192")
    return int(height), int(width)


def check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    """`value` if it is among `choices`, else CommandError that lists the choices."""
    from twofold.suggest import did_you_mean

    choices = list(choices)
    if value not in choices:
        listed = f"choose {', '.join(choices[:-1])} or {choices[-1]}"
        raise CommandError(f"{option} {value!r} is unknown{did_you_mean(value, choices)}; {listed}")
    return value


def parse_device(device: str) -> str:
    """The device by `environment.resolve_device`; CommandError for an unknown or missing one."""
    from twofold.environment import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise CommandError(f"--device {device}: {error}") from error


def parse_dtype(dtype: str) -> str:
    """The name in torch of a type of weights, by `environment.resolve_dtype`; CommandError for anything else."""
    from twofold.environment import DTYPES

    if dtype not in DTYPES:
        check_choice("--dtype", dtype, ("float32", "bfloat16", "float16"))
    return DTYPES[dtype]
