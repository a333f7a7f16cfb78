"""Exit codes, errors and output of all commands: text lines, or JSON for programs."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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


@dataclass
class OutputMode:
    """The options ``--json``, ``--quiet`` and ``--verbose`` of the running command."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False


_MODE: ContextVar[OutputMode] = ContextVar("_MODE")


def output_mode() -> OutputMode:
    """The output mode of the running command."""
    return _MODE.get(OutputMode())


# Variables with the log levels of libraries, which read them when they are imported.
_LIBRARY_LEVELS = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY")


@contextmanager
def own_output_mode() -> Generator[OutputMode]:
    """Context with a default output mode and quiet libraries; both are restored after it."""
    token, before = _MODE.set(OutputMode()), {name: os.environ.get(name) for name in _LIBRARY_LEVELS}
    os.environ.update({name: "error" for name in _LIBRARY_LEVELS if before[name] is None})
    try:
        yield _MODE.get()
    finally:
        _MODE.reset(token)
        for name, level in before.items():
            os.environ.pop(name, None)
            if level is not None:
                os.environ[name] = level


def show_library_messages() -> None:
    """Print messages of libraries and of `logging` to standard error from now on."""
    os.environ.update(dict.fromkeys(_LIBRARY_LEVELS, "info"))
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def print_error(message: str) -> None:
    """Print one line to standard error. Characters that are not printable are escaped."""
    print(f"twofold: {escape(' '.join(message.split()))}", file=sys.stderr)


def print_warning(message: str) -> None:
    """Print one line to standard error, unless ``--quiet``."""
    if not output_mode().quiet:
        print_error(f"warning: {message}")


@contextmanager
def warnings_on_one_line() -> Generator[None]:
    """Context in which warnings are printed as one line each. Those of installed packages need ``--verbose``."""
    twofold_folder = str(Path(__file__).parents[1])
    packages = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    printed: set[str] = set()
    show = warnings.showwarning

    def show_on_one_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if output_mode().verbose:
            show(message, category, filename, lineno, file, line)
            return
        in_package = any(filename.startswith(path) for path in packages)
        of_library = in_package and not filename.startswith(twofold_folder)
        if not of_library and str(message) not in printed:
            printed.add(str(message))
            print_warning(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show_on_one_line  # ty: ignore[invalid-assignment]
        yield


def print_json(record: dict[str, Any]) -> None:
    """With ``--json``, print an object on one line of standard output, and flush it."""
    if output_mode().json:
        print(to_json(record, allow_nan=True), flush=True)


def print_line(text: str) -> None:
    """Print one line about the progress of a command, unless ``--json`` or ``--quiet``; see `print_result`."""
    if not output_mode().quiet:
        print_result(text)


def print_result(text: str) -> None:
    """Print one line of the result of a command above any progress bar, unless ``--json``.

    Characters that are not printable are escaped.
    """
    if not output_mode().json:
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(escape(text), file=sys.stdout)
        else:
            print(escape(text))
        sys.stdout.flush()


def with_progress(records: Iterable[Any], total: int, title: str) -> Iterator[Any]:
    """Yield the records, with a progress bar on a terminal, unless ``--json`` or ``--quiet``."""
    mode = output_mode()
    if mode.json or mode.quiet or not sys.stderr.isatty():
        yield from records
        return
    from tqdm import tqdm

    # `print_result` writes above the bar.
    yield from tqdm(records, total=total, desc=escape(title), unit="", file=sys.stderr, leave=False)


def print_rows(
    rows: Iterable[dict[str, Any]], total: int, title: str, describe: Callable[[dict[str, Any]], str]
) -> Counter[str]:
    """Print each row, and return the number of rows by ``status``.

    Args:
        rows: rows with ``status``, and ``error`` if that is ``failed``; errors are printed to standard error.
        total: number of rows, for the progress bar.
        title: title of the progress bar.
        describe: function that returns the line of a row that has not failed, or "" for none.
    """
    counts: Counter[str] = Counter()
    for row in with_progress(rows, total, title):
        counts[row["status"]] += 1
        print_json(row)
        if row["status"] == "failed":
            print_error(row["error"])
        elif line := describe(row):
            print_line(line)
    return counts


def counted(counts: Mapping[str, int], names: Mapping[str, str]) -> str:
    """The number of rows by status as text: ``3 predicted, 1 failed``; ``names`` has the text of each status."""
    return ", ".join(f"{counts[status]} {name}" for status, name in names.items() if counts.get(status))


def parse_size_pair(text: str) -> tuple[int, int]:
    """Parse '256x192' (width x height) to (height, width). CommandError for anything else."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise CommandError(f"--size {text!r} is not WIDTHxHEIGHT, for example 256x192")
    return int(height), int(width)


def check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise CommandError with the choices."""
    from twofold.suggest import did_you_mean

    choices = list(choices)
    if value not in choices:
        listed = f"choose {' or '.join(filter(None, (', '.join(choices[:-1]), choices[-1])))}"
        raise CommandError(f"{option} {value!r} is unknown{did_you_mean(value, choices)}; {listed}")
    return value
