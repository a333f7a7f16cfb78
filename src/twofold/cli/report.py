"""`twofold report`: evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, emit, line


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
    from twofold.evaluate.compare import write_comparison
    from twofold.evaluate.markdown import plain_table

    reports = [read(path) for path in runs]
    table, notes = compare(reports)
    if as_json:
        for path, one, row in zip(runs, reports, table.lines, strict=True):
            protocol = one["protocol"]["id"]
            scores = {"scores": one["scores"], "note": row.note}
            emit(
                {
                    "run": str(path),
                    "name": row.name,
                    "comparable": row.kind == "ours",
                    "protocol": protocol,
                    **scores,
                }
            )
    else:
        for text in plain_table(table):
            line(text)
        for note in notes:
            line(f"warning: {note}")
    if out is not None:
        written = write_comparison(out, reports)
        if not as_json:
            line(f"see {written['html']}")
    return OK
