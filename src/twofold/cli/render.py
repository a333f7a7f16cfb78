"""The command `twofold render`, which renders procedural scenes with exact ground truth to a data folder."""

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
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The data folder, new or incomplete.")],
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Seed of the scenes.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Index of the first scene.")] = 0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width x height in pixels.")] = "256x192",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    spp: Annotated[int, typer.Option(min=1, help="Light paths per pixel, before denoising.")] = 8,
    assets: Annotated[
        str | None,
        typer.Option(metavar="DIRS", help="Folders of models and panoramas, joined by ':'; $TWOFOLD_ASSETS."),
    ] = None,
) -> int:
    """Render labelled scenes: image, depth, normals, instances, classes, mask, camera and caption.

    The same seed and index give the same files on any machine. An interrupted command continues when it is run again.
    Needs the extra 'render'.
    """
    height, width = parse_size_pair(size)
    from dataclasses import asdict

    from twofold.render import RendererMissing, render as render_scenes

    rendered = 0
    try:
        scenes = render_scenes(count, seed, out, width, height, workers, spp, start, assets)
        for scene in with_progress(scenes, count, "render"):
            rendered += 1
            print_json(asdict(scene))
    except RendererMissing as error:
        raise CommandError(str(error)) from error
    except RuntimeError as error:
        raise CommandError(
            f"{error}; finished scenes are complete, run the command again to continue", SOME_FAILED
        ) from error
    print_line(f"{rendered} scenes rendered, {count - rendered} existed: {out}/ (see its contact_sheet.png)")
    return OK
