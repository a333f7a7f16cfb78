"""`twofold render`: procedural scenes with exact ground truth, as a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, SOME_FAILED, Stop, complain, emit, line, size_pair, track


def render(
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The data folder, new or begun.")],
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Other seeds give other scenes.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="Index of the first scene.")] = 0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Width x height in pixels.")] = "256x192",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    spp: Annotated[int, typer.Option(min=1, help="Light paths a pixel, before denoising.")] = 16,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a scene on standard output.")
    ] = False,
) -> int:
    """Render labelled scenes: picture, depth, normals, instances, classes, mask, camera and caption.

    The same seed and index give the same files on any machine. Run again after a kill, the command does what
    is left. Needs the extra 'render'.
    """
    from importlib.util import find_spec

    height, width = size_pair(size)
    if find_spec("mitsuba") is None:
        raise Stop("rendering needs mitsuba; run: pip install 'twofold[render]'")
    from twofold.data.render import render as scenes

    failed = 0
    records = scenes(count, seed, out, width, height, workers, spp, start)
    for record in track(records, count, "render", quiet=as_json):
        error = record.get("error")
        if as_json:
            emit(record)
        if error:
            failed += 1
            complain(f"scene {record.get('id', '')}: {error}")
    if not as_json:
        line(f"{count - failed} scenes in {out}/" + (f", {failed} failed" if failed else ""))
    return SOME_FAILED if failed else OK
