"""`twofold report`: evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, print_json, print_line


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders that twofold evaluate wrote (--out).")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write comparison.md and comparison.html there.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a run on standard output.")
    ] = False,
) -> int:
    """Compare evaluations side by side, the first being what the others are held against.

    Runs of another protocol, other data or other pictures are marked: their numbers say nothing about which is better.
    """
    from twofold.evaluate import compare, read
    from twofold.evaluate.compare import comparison_text, write_comparison

    reports = [read(path) for path in runs]
    found = compare(reports)
    if as_json:
        for path, one, run in zip(runs, reports, found.runs, strict=True):
            said = {"comparable": run.comparable, "apart": run.apart, "notes": run.notes}
            print_json(
                {
                    "run": str(path),
                    "name": run.name,
                    "protocol": one["protocol"]["id"],
                    "scores": one["scores"],
                    **said,
                }
            )
    else:
        for text in comparison_text(found):
            print_line(text)
        for warning in found.warnings():
            print_line(f"warning: {warning}")
    if out is not None:
        written = write_comparison(out, found)
        if not as_json:
            print_line(f"see {written['html']}")
    return OK
