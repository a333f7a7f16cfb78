"""The command `twofold data caption`, which adds captions to the rows of a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, SOME_FAILED, counted, print_line, print_rows
from twofold.cli.model import DeviceOptions


def caption(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder; its manifest is rewritten.")],
    device: DeviceOptions,
    captioner: Annotated[
        str,
        typer.Option(metavar="HUB_ID", help="An image-to-text model of transformers: hub id or folder."),
    ] = "Salesforce/blip-image-captioning-base",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also caption rows that have a caption.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images captioned together.")] = 8,
) -> int:
    """Caption the images of a data folder: BLIP, BLIP-2, GIT, ViT-GPT2 or any image-to-text model of transformers.

    Rows without a caption get one ('text' in metadata.jsonl, and 'caption_source'). The manifest is replaced once, at
    the end. An interrupted command continues when it is run again.
    """
    from twofold.data import Folder
    from twofold.generate.caption_folder import caption_folder

    total = len(Folder(folder, targets=()))
    events = caption_folder(folder, captioner, device.resolve(), batch, overwrite)
    counts = print_rows(events, total, "caption", lambda event: "")
    summary = counted(counts, {"captioned": "captioned", "kept": "kept", "failed": "failed"})
    print_line(f"{summary}: {folder}/metadata.jsonl")
    return SOME_FAILED if counts["failed"] else OK
