"""`twofold data caption`: captions into the rows of a data folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, SOME_FAILED, print_error, print_json, print_line, with_progress
from twofold.cli.options import DeviceOptions


def caption(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder; its manifest is rewritten.")],
    device: DeviceOptions,
    captioner: Annotated[
        str,
        typer.Option(metavar="HUB_ID", help="An image-to-text model of transformers: hub id or folder."),
    ] = "Salesforce/blip-image-captioning-base",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also caption rows that have a text.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images captioned together.")] = 8,
) -> int:
    """Caption the images of a data folder: BLIP, BLIP-2, GIT, ViT-GPT2 or any image-to-text model of transformers.

    Rows without a text get one ('text' in metadata.jsonl, and 'caption_source'). The manifest is replaced once, at the
    end; run again after a kill, the command does what is left.
    """
    from twofold.data import Folder
    from twofold.generate.caption_folder import caption_folder

    total, counts = len(Folder(folder, targets=())), Counter[str]()
    events = caption_folder(folder, captioner, device.resolve(), batch, overwrite)
    for event in with_progress(events, total, "caption"):
        counts[event["status"]] += 1
        print_json(event)
        if event["status"] == "failed":
            print_error(event["error"])
    words = ("captioned", "kept", "failed")
    print_line(f"{', '.join(f'{counts[w]} {w}' for w in words if counts[w])}: {folder}/metadata.jsonl")
    return SOME_FAILED if counts["failed"] else OK
