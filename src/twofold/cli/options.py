"""Options that several commands share, and helpers to declare options."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import CommandError, check_choice, output_mode, show_library_messages
from twofold.io import Shard
from twofold.io.limits import LIMIT_VARIABLE, parse_pixels


def choice(option: str, choices: tuple[str, ...], help: str) -> Any:
    """An option whose value is one of ``choices``, or "" if that is the default. Shells complete the choices."""

    def check(value: str) -> str:
        return check_choice(option, value, choices) if value else value

    def complete(incomplete: str) -> list[str]:
        return [value for value in choices if value.startswith(incomplete)]

    return typer.Option(option, metavar="|".join(choices), help=help, callback=check, autocompletion=complete)


def _mode_setter(field: str) -> Callable[[bool], bool]:
    def set_mode(value: bool) -> bool:
        if value:
            setattr(output_mode(), field, True)
            if field == "verbose":
                show_library_messages()
        if output_mode().quiet and output_mode().verbose:
            raise CommandError("--quiet and --verbose exclude each other; leave one out")
        return value

    return set_mode


@dataclass(frozen=True)
class GeneralOptions(OptionGroup):
    """Options of every command."""

    title: ClassVar[str] = "General"
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, one object a line.", callback=_mode_setter("json")),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print results and errors only.", callback=_mode_setter("quiet")),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Also print warnings and logs of libraries, and tracebacks.",
            callback=_mode_setter("verbose"),
        ),
    ] = False


def _set_limit(text: str) -> str:
    """Set the limit for this process and its subprocesses (data loaders, ranks)."""
    if text:
        try:
            os.environ[LIMIT_VARIABLE] = str(parse_pixels(text))
        except ValueError as error:
            raise CommandError(f"--max-pixels: {error}") from None
    return text


@contextmanager
def limits_restored() -> Generator[None]:
    """Context that restores the limit, for programs that run several commands."""
    before = os.environ.get(LIMIT_VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(LIMIT_VARIABLE, None)
        if before is not None:
            os.environ[LIMIT_VARIABLE] = before


ShardText = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Process the I-th of N shards, such as 1/4; other processes do the rest.",
    ),
]


def parse_shard(text: str) -> Shard:
    """Parse ``--shard``. CommandError if the text is not I/N."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise CommandError(f"--shard {error}") from None


@dataclass(frozen=True)
class ImageLimit(OptionGroup):
    """Options of commands that read images."""

    title: ClassVar[str] = "General"
    max_pixels: Annotated[
        str,
        typer.Option(
            "--max-pixels",
            metavar="N",
            callback=_set_limit,
            help="Maximum number of pixels of an image or map, such as 200M; 50M by default.",
        ),
    ] = ""
