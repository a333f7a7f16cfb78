"""Reports side by side; numbers that are not comparable are told apart, never mixed in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..image import atomic_write
from .markdown import markdown_table
from .page import document, html_table
from .report import Report
from .standard import EvaluationError
from .tables import OURS, PUBLISHED, Cell, Line, Table, heading, number, subject


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why the numbers of two reports may not be compared; nothing when they may."""
    said = []
    if first["protocol"]["fingerprint"] != other["protocol"]["fingerprint"]:
        mine, theirs = first["protocol"], other["protocol"]
        changed = _changed(mine["settings"], theirs["settings"])
        said.append(
            f"another protocol ({theirs['id']} instead of {mine['id']})"
            if mine["id"] != theirs["id"]
            else f"another setting of {mine['id']} ({changed})"
        )
    if first["data"]["sha256"] != other["data"]["sha256"]:
        said.append(f"other data ({other['data']['name']} instead of {first['data']['name']})")
    elif first["ids"] != other["ids"]:
        mine, theirs = first["counts"]["evaluated"], other["counts"]["evaluated"]
        said.append(
            f"other pictures ({theirs} evaluated instead of {mine})" if mine != theirs else "other pictures"
        )
    return said


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} {b.get(k)} instead of {a.get(k)}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)
    )


def compare(reports: Sequence[Report]) -> tuple[Table, list[str]]:
    """One table of several reports, a line each, and what keeps some from being compared with the first.

    The best number of a column is marked among the runs that may be compared; the others are marked as not comparable.

    Raises:
        EvaluationError: no report, or they have no score in common.
    """
    if not reports:
        raise EvaluationError("there is no report to show")
    first = reports[0]
    names = [n for n in first["metrics"] if all(n in r["metrics"] for r in reports)]
    if not names or len({r["protocol"]["settings"]["target"] for r in reports}) > 1:
        targets = ", ".join(sorted({r["protocol"]["id"] for r in reports}))
        raise EvaluationError(f"these reports have no score in common ({targets}); compare those of one task")
    apart = [differences(first, report) for report in reports]
    lines = []
    for report, why in zip(reports, apart, strict=True):
        cells = tuple(_cell(name, report, why, reports, apart) for name in names)
        mark = " ≠" if why else ""
        said = [f"not comparable: {', '.join(why)}"] * bool(why) + [
            *report["deviations"],
            *report["warnings"],
        ]
        lines.append(Line(subject(report) + mark, PUBLISHED if why else OURS, cells, note="; ".join(said)))
    notes = [
        f"{subject(report)}: not comparable with {subject(first)}: {', '.join(why)}"
        for report, why in zip(reports, apart, strict=True)
        if why
    ]
    return Table(tuple(heading(n, first["metrics"][n]) for n in names), tuple(lines)), notes


def _cell(
    name: str, report: Report, why: Sequence[str], reports: Sequence[Report], apart: Sequence[Sequence[str]]
) -> Cell:
    metric, value = report["metrics"][name], report["scores"][name]
    text = number(value, metric["unit"])
    if why:
        return Cell(text, "doubt", f"not comparable: {', '.join(why)}")
    known = [
        r["scores"][name]
        for r, d in zip(reports, apart, strict=True)
        if not d and r["scores"][name] is not None
    ]
    best = (min if metric["better"] == "lower" else max)(known, default=None)
    return Cell(text, "best" if value is not None and len(known) > 1 and value == best else "")


def comparison_markdown(reports: Sequence[Report]) -> str:
    """The table as a Markdown page."""
    table, notes = compare(reports)
    lines = [f"# {_title(reports)}", "", *(f"> **Warning**: {note}." for note in notes), ""]
    return "\n".join([*lines, *markdown_table(table)]) + "\n"


def comparison_page(reports: Sequence[Report]) -> str:
    """The table as an HTML page."""
    table, notes = compare(reports)
    body = [
        f"<h1>{_title(reports)}</h1>",
        *(f'<p class="warn">{escape(note)}.</p>' for note in notes),
        html_table(table),
    ]
    return document(_title(reports), body)


def write_comparison(out: Path, reports: Sequence[Report]) -> dict[str, Path]:
    """Writes ``comparison.md`` and ``comparison.html``, each whole, and gives their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {kind: out / f"comparison.{kind}" for kind in ("md", "html")}
    texts = {"md": comparison_markdown(reports), "html": comparison_page(reports)}
    for kind, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(texts[kind], "utf-8")
    return paths


def _title(reports: Sequence[Report]) -> str:
    benchmark = reports[0]["benchmark"]
    return f"{len(reports)} runs on {benchmark['name'] if benchmark else reports[0]['data']['name']}"
