"""Tables of scores, rendered by `markdown` and `html_report`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .published import protocol_title

ARROWS = {"lower": "↓", "higher": "↑"}
# Kinds of rows.
OWN, BASELINE, PUBLISHED = "own", "baseline", "published"


@dataclass(frozen=True)
class Cell:
    """A score as text; ``mark`` is empty, ``own``, ``best`` or ``flagged``, and ``reason`` explains the flag."""

    text: str = ""
    mark: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table: name, kind, cells by column, source and note."""

    name: str
    kind: str
    cells: tuple[Cell, ...]
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of scores: headers of its columns, and its rows."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def format_score(value: float | None, unit: str = "") -> str:
    """A score as text: two decimals for angles and percentages; for other units four, fewer from 10 on."""
    if value is None:
        return "–"
    if unit in ("deg", "%"):
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) >= 10 else f"{value:.4f}"


def column_header(name: str, metric: Mapping[str, str]) -> str:
    """A column's header: name, unit, and which direction is better."""
    unit = {"deg": " (°)", "": ""}.get(metric["unit"], f" ({metric['unit']})")
    return f"{name}{unit} {ARROWS[metric['better']]}"


def run_name(report: Mapping[str, Any]) -> str:
    """The model, or the folder of predictions, that was evaluated."""
    subject = report["subject"]
    return subject["model"] if subject["kind"] == "model" else f"predictions of {subject['folder']}"


def own_table(report: Mapping[str, Any]) -> Table:
    """The scores of this run: a row for each metric, with its interval and the image-independent baselines."""
    metrics, intervals, baselines = report["metrics"], report["intervals"], report["baselines"]
    columns = ["this run", *(["95 % interval"] if intervals else []), *(f"baseline: {n}" for n in baselines)]
    rows = []
    for name, metric in metrics.items():
        unit = metric["unit"]
        cells = [Cell(format_score(report["scores"][name], unit), "own")]
        if intervals:
            low, high = intervals.get(name) or (None, None)
            cells.append(
                Cell("" if low is None else f"{format_score(low, unit)} – {format_score(high, unit)}")
            )
        cells += [Cell(format_score(baseline[name], unit)) for baseline in baselines.values()]
        rows.append(TableRow(column_header(name, metric), BASELINE, tuple(cells)))
    return Table(tuple(columns), tuple(rows))


def group_table(report: Mapping[str, Any]) -> Table:
    """The scores of each group of images, a row for each group."""
    metrics = report["metrics"]
    rows = []
    for name, group in report["groups"].items():
        cells = [Cell(format_score(group["scores"][n], metric["unit"])) for n, metric in metrics.items()]
        rows.append(TableRow(name, BASELINE, (Cell(str(group["evaluated"])), *cells)))
    return Table(("images", *(column_header(n, m) for n, m in metrics.items())), tuple(rows))


def published_tables(report: Mapping[str, Any]) -> tuple[list[tuple[str, Table]], list[str]]:
    """A titled table of published scores for each protocol, best first, and the list of their sources.

    Scores of different protocols never share a table: this run is in the table of its own protocol only.
    """
    metrics = report["metrics"]
    rows = [row for row in report["published"] if set(row["scores"]) & set(metrics)]
    sources = list(dict.fromkeys(_source(row) for row in rows))
    own = report["protocol"]["id"]
    ids = sorted({row["protocol"] for row in rows}, key=lambda id: (id != own, id))
    tables = []
    for id in ids:
        of_protocol = [row for row in rows if row["protocol"] == id]
        title = f"Published by {id}" + (
            "" if id == own else f" ({protocol_title(id)}): not comparable with this run"
        )
        tables.append((title, _published_table(report, of_protocol, sources, id == own)))
    return tables, sources


def _published_table(
    report: Mapping[str, Any], rows: list[Mapping[str, Any]], sources: Sequence[str], with_own: bool
) -> Table:
    """The published scores of one protocol, best first, preceded by this run if ``with_own``.

    It has a column for each metric of the report that at least one published row has.
    """
    metrics = report["metrics"]
    names = [name for name in metrics if any(name in row["scores"] for row in rows)]
    first = names[0]
    worse = 1 if metrics[first]["better"] == "lower" else -1
    rows = sorted(rows, key=lambda row: worse * row["scores"].get(first, worse * math.inf))
    own = tuple(Cell(format_score(report["scores"][n], metrics[n]["unit"])) for n in names)
    table_rows = [TableRow(f"this run: {run_name(report)}", OWN, own)] if with_own else []
    for row in rows:
        source = f"[{sources.index(_source(row)) + 1}]"
        table_rows.append(TableRow(row["method"], PUBLISHED, _cells(row, names), source, row["note"]))
    return Table(tuple(column_header(n, metrics[n]) for n in names), tuple(table_rows))


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Cell, ...]:
    """The scores of a published row, with as many digits as were printed."""
    printed, doubts = row["printed"], row["doubts"]
    return tuple(
        Cell(printed[n], "flagged" if n in doubts else "", doubts.get(n, "")) if n in printed else Cell()
        for n in names
    )


def _source(row: Mapping[str, Any]) -> str:
    table = f", table {row['table']}" if row["table"][0].isdigit() else ""
    return f"{row['source']}{table}. {row['url']}{_READ[row['read']]}"


# Text for each kind of place that a number was read from, see `published`.
_READ = {
    "paper": "",
    "repository": "",
    "figure": " (read off a figure)",
    "quoted": " (quoted by another source: check before use)",
}


def summary_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings, data, counts and versions of an evaluation, as (name, text) pairs."""
    subject, protocol, data = report["subject"], report["protocol"], report["data"]
    rows = [("evaluated", run_name(report))]
    if subject["kind"] == "model":
        rows += [("model digest", subject["digest"][:16]), ("settings", _model_settings(subject))]
    benchmark = report["benchmark"]
    if benchmark:
        rows.append(("benchmark", f"{benchmark['id']}: {benchmark['title']}"))
    rows += [
        ("protocol", f"{protocol['id']} ({protocol['fingerprint']}): {protocol['title']}"),
        ("protocol settings", _settings(protocol["settings"])),
        ("data", f"{data['name']}, {data['count']} images, sha256 {data['sha256'][:16]}"),
        ("images", counts_text(report["counts"])),
    ]
    rows += [("deviation from the protocol", line) for line in report["deviations"]]
    rows += [
        ("command", " ".join(report["command"])),
        (
            "created",
            f"{report['created']} with {', '.join(f'{k} {v}' for k, v in report['versions'].items())}",
        ),
        ("time", f"{report['seconds']:g} s" + (f" on {report['device']}" if report["device"] else "")),
    ]
    return [(name, text) for name, text in rows if text]


def _model_settings(subject: Mapping[str, Any]) -> str:
    size = subject["size"]
    settings = [
        f"task {subject['task']}",
        f"seed {subject['seed']}",
        "native size" if size == 0 else f"longest edge {size}",
    ]
    settings += [f"ensemble of {subject['ensemble']}"] if subject["ensemble"] > 1 else []
    return ", ".join([*settings, subject["dtype"]])


def _settings(settings: Mapping[str, Any]) -> str:
    skip = ("name", "version", "metrics", "target", "spaces", "seed")
    entries = []
    for key, value in settings.items():
        if key in skip or (value in (None, "", 0, []) and key != "size"):
            continue
        if key == "size":
            value = {None: "the model's own", 0: "native"}.get(value, value)
        entries.append(
            f"{key.replace('_', ' ')} {' to '.join(map(str, value)) if isinstance(value, list) else value}"
        )
    return ", ".join(entries)


def counts_text(counts: Mapping[str, Any]) -> str:
    """How many images were evaluated, skipped and failed, as text."""
    parts = [f"{counts['evaluated']} evaluated"]
    for status in ("skipped", "failed"):
        parts += [f"{n} {status} ({reason})" for reason, n in counts[status].items()]
    parts += [f"{counts['pending']} pending"] if counts["pending"] else []
    return ", ".join(parts)
