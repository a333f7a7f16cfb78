"""The option of commands that read images: how large one may be."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from twofold.cli.console import CommandError
from twofold.io.limits import LIMIT_VARIABLE, parse_pixels


def _set_limit(text: str) -> str:
    """Sets the limit for this process and those that it starts (data loaders, members of a team)."""
    if text:
        try:
            os.environ[LIMIT_VARIABLE] = str(parse_pixels(text))
        except ValueError as error:
            raise CommandError(f"--max-pixels: {error}") from None
    return text


MaxPixels = Annotated[
    str,
    typer.Option(
        "--max-pixels",
        metavar="N",
        callback=_set_limit,
        help="Most pixels of an image or map, such as 200M; 50M by default. Larger ones are refused unread.",
    ),
]


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
