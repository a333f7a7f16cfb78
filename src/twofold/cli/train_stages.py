"""`twofold train --smoke-test` of a second stage: warm-up, generation and self-improving at reduced size."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from twofold.cli.console import OK, print_json, print_line, with_progress
from twofold.cli.improve import EventPrinter
from twofold.cli.interrupt import report_saved
from twofold.cli.train import done, record_text

if TYPE_CHECKING:
    from twofold.train.recipe import Recipe


def train_stages(recipe: Recipe, small: Recipe, run: Path, device: str, log_every: int) -> int:
    """Run both stages and print what happens; ``small`` is the smaller version of ``recipe``."""
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
                what = "labelled images only" if stage == "warm-up" else "generate images, then train on both"
                print_line(f"{stage}: {what}")
            if stage == "improve":
                printer(event)
            elif "validation" in event or event["step"] % log_every == 0:
                print_line(record_text(event, small.loop.steps))
    if distributed.first:
        print_line(f"the warm-up: {run / 'warm-up' / 'checkpoint'}")
        print_line(done(run / "checkpoint", small))
    return OK
