"""A report as Markdown, and tables as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..io import escape, escape_markdown
from .tables import (
    OWN,
    Cell,
    Table,
    TableRow,
    format_score,
    group_table,
    own_table,
    published_tables,
    run_name,
    summary_rows,
)


def markdown_document(report: Mapping[str, Any]) -> str:
    """The report as one Markdown page."""
    benchmark = report["benchmark"]
    name = benchmark["name"] if benchmark else report["data"]["name"]
    parts = [f"# {escape_markdown(f'{run_name(report)} on {name}')}", ""]
    for line in report["warnings"]:
        parts += [f"> **Warning**: {escape_markdown(line)}.", ""]
    parts += ["| | |", "|---|---|", *(f"| {k} | {escape_markdown(v)} |" for k, v in summary_rows(report)), ""]
    parts += ["## Scores", "", *markdown_table(own_table(report)), ""]
    for note in (report["protocol"]["notes"], benchmark["notes"] if benchmark else ""):
        parts += [escape_markdown(note), ""] if note else []
    groups = group_table(report)
    if groups.rows:
        parts += [f"## By {escape_markdown(report['group'])}", "", *markdown_table(groups), ""]
    tables, sources = published_tables(report)
    for title, table in tables:
        parts += [f"## {escape_markdown(title)}", "", *markdown_table(table), "", *_flag_reasons(table)]
    if tables:
        parts += [*(f"{n}. {escape_markdown(source)}" for n, source in enumerate(sources, 1)), ""]
    parts += _examples(report)
    for kind in ("failed", "skipped"):
        parts += _listed(kind, report)
    return "\n".join(parts).rstrip() + "\n"


def markdown_table(table: Table) -> list[str]:
    """A table in Markdown; the row of this run is in bold, and flagged scores have a question mark."""
    with_source = any(row.source or row.note for row in table.rows)
    head = f"| | {' | '.join(map(escape_markdown, table.columns))} |{' source |' if with_source else ''}"
    rule = "|---|" + "---:|" * len(table.columns) + ("---|" if with_source else "")
    return [head, rule, *(_row(row, with_source) for row in table.rows)]


def _row(row: TableRow, with_source: bool) -> str:
    cells = (_cell(cell, row.kind == OWN) for cell in row.cells)
    name = f"**{escape_markdown(row.name)}**" if row.kind == OWN else escape_markdown(row.name)
    source = f" {escape_markdown(' '.join(filter(None, (row.source, row.note))))} |" if with_source else ""
    return f"| {name} | {' | '.join(cells)} |{source}"


def _cell(cell: Cell, bold: bool) -> str:
    if not cell.text:
        return ""
    emphasis = "**" if bold or cell.mark in ("own", "best") else ""
    return f"{emphasis}{escape_markdown(cell.text)}{emphasis}{' (?)' if cell.mark == 'flagged' else ''}"


def _flag_reasons(table: Table) -> list[str]:
    reasons = [
        escape_markdown(f"- (?) {row.name}, {column}: {cell.reason}.")
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.mark == "flagged"
    ]
    return [*reasons, ""] if reasons else []


def _examples(report: Mapping[str, Any]) -> list[str]:
    examples = report["examples"]
    metric = examples["metric"]
    unit = report["metrics"].get(metric, {}).get("unit", "")
    lines = [
        f"- {rank}: {escape_markdown(examples[rank]['id'])}, {escape_markdown(metric)} "
        f"{format_score(examples[rank]['value'], unit)}"
        for rank in ("best", "median", "worst")
        if rank in examples
    ]
    return ["## Images", "", *lines, ""] if lines else []


def _listed(kind: str, report: Mapping[str, Any]) -> list[str]:
    listed: Sequence[Mapping[str, str]] = report[kind]
    if not listed:
        return []
    total = sum(report["counts"][kind].values())
    more = [f"- and {total - len(listed)} more; rows.jsonl lists all"] if total > len(listed) else []
    lines = (
        f"- {escape_markdown(one['id'])}: {escape_markdown(one.get('error') or one['reason'])}"
        for one in listed
    )
    return [f"## {kind.capitalize()}: {total}", "", *lines, *more, ""]


def plain_table(table: Table) -> list[str]:
    """A table as plain text in aligned columns; ``*`` follows the best score and ``?`` a flagged one."""
    head = ["", *map(escape, table.columns)]
    rows = [
        [
            escape(row.name),
            *(escape(cell.text) + {"flagged": "?", "best": "*"}.get(cell.mark, "") for cell in row.cells),
        ]
        for row in table.rows
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
