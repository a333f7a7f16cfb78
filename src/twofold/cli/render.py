"""`twofold render`: procedural scenes with exact ground truth, as a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import (
    OK,
    SOME_FAILED,
    CommandError,
    parse_size_pair,
    print_json,
    print_line,
    with_progress,
)


def render(
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The data folder, new or begun.")],
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Other seeds give other scenes.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Index of the first scene.")] = 0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width x height in pixels.")] = "256x192",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    spp: Annotated[int, typer.Option(min=1, help="Light paths a pixel, before denoising.")] = 8,
    assets: Annotated[
        str | None,
        typer.Option(metavar="DIRS", help="Folders of models and panoramas, joined by ':'; $TWOFOLD_ASSETS."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a scene on standard output.")
    ] = False,
) -> int:
    """Render labelled scenes: picture, depth, normals, instances, classes, mask, camera and caption.

    The same seed and index give the same files on any machine. Run again after a kill, the command does what
    is left. Needs the extra 'render'.
    """
    height, width = parse_size_pair(size)
    from dataclasses import asdict

    from twofold.render import RendererMissing
    from twofold.render import render as scenes

    drawn = 0
    try:
        for scene in with_progress(
            scenes(count, seed, out, width, height, workers, spp, start, assets), count, "render", as_json
        ):
            drawn += 1
            if as_json:
                print_json(asdict(scene))
    except RendererMissing as error:
        raise CommandError(str(error)) from error
    except RuntimeError as error:
        raise CommandError(
            f"{error}; what was rendered is whole, run the command again to go on", SOME_FAILED
        ) from error
    if not as_json:
        print_line(
            f"{drawn} scenes rendered, {count - drawn} were there: {out}/ (see contact_sheet.png there)"
        )
    return OK
