"""A report as Markdown, and tables as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .tables import OURS, Line, Table, facts, number, score_table, subject


def document(report: Mapping[str, Any]) -> str:
    """The report as one Markdown page."""
    benchmark = report["benchmark"]
    name = benchmark["name"] if benchmark else report["data"]["name"]
    parts = [f"# {subject(report)} on {name}", ""]
    parts += [f"> **Warning**: {line}." for line in report["warnings"]]
    parts += ["", "| | |", "|---|---|", *(f"| {k} | {escaped(v)} |" for k, v in facts(report)), ""]
    table = score_table(report)
    parts += ["## Scores", "", *markdown_table(table), "", *_doubts(table)]
    parts += [f"{report['protocol']['notes']}", ""] if report["protocol"]["notes"] else []
    if benchmark and benchmark["notes"]:
        parts += [benchmark["notes"], ""]
    parts += _examples(report)
    for kind in ("failed", "skipped"):
        parts += _named(kind, report)
    return "\n".join(parts).rstrip() + "\n"


def markdown_table(table: Table) -> list[str]:
    """A table's lines; the run's own in bold, doubtful numbers with a question mark."""
    head = f"| | {' | '.join(table.columns)} | source |"
    rule = "|---|" + "---:|" * len(table.columns) + "---|"
    return [head, rule, *map(_line, table.lines)]


def _line(line: Line) -> str:
    bold = "**" if line.kind == OURS else ""
    cells = (
        f"{bold}{cell.text}{bold}{_MARKS.get(cell.mark, '')}" if cell.text else "" for cell in line.cells
    )
    return f"| {bold}{escaped(line.name.strip())}{bold} | {' | '.join(cells)} | {escaped(line.source)} |"


_MARKS = {"doubt": " (?)", "best": " ★"}


def escaped(text: str) -> str:
    """Text that a table of Markdown can hold."""
    return text.replace("|", "\\|").replace("\n", " ")


def _doubts(table: Table) -> list[str]:
    said = [
        f"- (?) {line.name}, {column}: {cell.why}."
        for line in table.lines
        for column, cell in zip(table.columns, line.cells, strict=True)
        if cell.mark == "doubt"
    ]
    return [*said, ""] if said else []


def _examples(report: Mapping[str, Any]) -> list[str]:
    found = report["examples"]
    metric = found["metric"]
    unit = report["metrics"][metric]["unit"]
    lines = [
        f"- {which}: `{found[which]['id']}`, {metric} {number(found[which]['value'], unit)}"
        for which in ("best", "median", "worst")
        if which in found
    ]
    return ["## Pictures", "", *lines, ""] if lines else []


def _named(kind: str, report: Mapping[str, Any]) -> list[str]:
    named: Sequence[Mapping[str, str]] = report[kind]
    if not named:
        return []
    total = sum(report["counts"][kind].values())
    more = [f"- and {total - len(named)} more; rows.jsonl names all"] if total > len(named) else []
    lines = (f"- `{one['id']}`: {one.get('error') or one['why']}" for one in named)
    return [f"## {kind.capitalize()}: {total}", "", *lines, *more, ""]


def plain_table(table: Table, source: bool = False) -> list[str]:
    """A table for a terminal, in columns."""
    head = ["", *table.columns, *(["source"] if source else [])]
    rows = [
        [line.name, *(c.text + {"doubt": "?", "best": "*"}.get(c.mark, "") for c in line.cells)]
        + ([line.source] if source else [])
        for line in table.lines
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(w) if i in (0, len(table.columns) + 1) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
