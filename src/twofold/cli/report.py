"""The command `twofold report`, which compares evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.console import OK, print_json, print_line, print_result


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders that twofold evaluate wrote (--out).")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write comparison.md and comparison.html there.")
    ] = None,
) -> int:
    """Compare evaluations in one table; the first is the reference of the others.

    Runs of another protocol, other data or other images are marked: their scores are not comparable.
    """
    from twofold.evaluate import compare, read_report
    from twofold.evaluate.compare import comparison_text, write_comparison

    reports = [read_report(path) for path in runs]
    comparison = compare(reports)
    for path, read, run in zip(runs, reports, comparison.runs, strict=True):
        print_json(
            {
                "run": str(path),
                "name": run.name,
                "protocol": read["protocol"]["id"],
                "scores": read["scores"],
                "comparable": run.comparable,
                "differences": run.differences,
                "notes": run.notes,
            }
        )
    for text in comparison_text(comparison):
        print_result(text)
    for warning in comparison.warnings():
        print_result(f"warning: {warning}")
    if out is not None:
        print_line(f"see {write_comparison(out, comparison)['html']}")
    return OK
