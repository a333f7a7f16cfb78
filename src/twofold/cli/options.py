"""Options of every command, and how options are declared."""

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
    """An option that takes one of ``choices`` (or "", its default in some commands), which shells complete."""

    def check(value: str) -> str:
        return check_choice(option, value, choices) if value else value

    def complete(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

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
    """Of every command."""

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
    """Sets the limit for this process and those that it starts (data loaders, ranks)."""
    if text:
        try:
            os.environ[LIMIT_VARIABLE] = str(parse_pixels(text))
        except ValueError as error:
            raise CommandError(f"--max-pixels: {error}") from None
    return text


@contextmanager
def limits_restored() -> Generator[None]:
    """After the block the limit is what it was before, for programs that run several commands."""
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
        "--shard", metavar="I/N", help="Do the I-th of N shares, such as 1/4; other processes do the others."
    ),
]


def parse_shard(text: str) -> Shard:
    """The share of ``--shard``; CommandError for anything else than I/N."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise CommandError(f"--shard {error}") from None


@dataclass(frozen=True)
class ImageLimit(OptionGroup):
    """Of commands that read images."""

    title: ClassVar[str] = "General"
    max_pixels: Annotated[
        str,
        typer.Option(
            "--max-pixels",
            metavar="N",
            callback=_set_limit,
            help="Maximal number of pixels of an image or map, such as 200M; 50M by default. Larger ones are refused.",
        ),
    ] = ""
