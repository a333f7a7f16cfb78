"""Runs `twofold train --smoke-test` of a second stage: warm-up, generation and self-improvement at reduced size."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from twofold.cli.console import OK, print_json, print_line, with_progress
from twofold.cli.improve import EventPrinter
from twofold.cli.interrupt import report_saved
from twofold.cli.train import done_text, record_text

if TYPE_CHECKING:
    from twofold.train.recipe import Recipe


def train_stages(recipe: Recipe, small: Recipe, run: Path, device: str, log_every: int) -> int:
    """Run both stages and print their events.

    Args:
        recipe: recipe of the second stage.
        small: the smaller version of the recipe.
        run: folder of the run.
        device: the device to train on.
        log_every: number of steps between printed steps.
    """
    from twofold.train.distributed import DistributedContext
    from twofold.train.smoke_stages import run_stages

    distributed = DistributedContext(device)
    printer, stage = EventPrinter(small.loop.steps, 1, log_every), ""
    events = run_stages(recipe, small, run, distributed)
    with report_saved(run), closing(events):
        for event in with_progress(events, 0, small.name) if distributed.first else events:
            if not distributed.first:
                continue
            print_json(event)
            if event["stage"] != stage:
                stage = event["stage"]
                title = (
                    "labelled images only" if stage == "warm-up" else "generate images, then train on both"
                )
                print_line(f"{stage}: {title}")
            if stage == "improve":
                printer(event)
            elif "validation" in event or event["step"] % log_every == 0:
                print_line(record_text(event, small.loop.steps))
    if distributed.first:
        print_line(f"the warm-up: {run / 'warm-up' / 'checkpoint'}")
        print_line(done_text(run / "checkpoint", small))
    return OK
