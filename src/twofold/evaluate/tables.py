"""Tables of scores, before they become text or HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .published import protocol_title

ARROWS = {"lower": "↓", "higher": "↑"}
# What a cell, or a line, is: shown in its own way.
OURS, BASELINE, PUBLISHED = "ours", "baseline", "published"


@dataclass(frozen=True)
class Cell:
    """A score as text; ``mark`` is ``own``, ``best`` or ``doubt``, ``why`` what a reader is told of it."""

    text: str = ""
    mark: str = ""
    why: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: who, what kind, cells by column, where it is from, and what one has to know."""

    name: str
    kind: str
    cells: tuple[Cell, ...]
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and lines."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def number(value: float | None, unit: str = "") -> str:
    """A score as text: two digits after the point for angles and percentages, four for shares and metres."""
    if value is None:
        return "–"
    if unit in ("deg", "%"):
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) >= 10 else f"{value:.4f}"


def column_header(name: str, metric: Mapping[str, str]) -> str:
    """A column's head: name, unit, and which way is better."""
    unit = {"deg": " (°)", "": ""}.get(metric["unit"], f" ({metric['unit']})")
    return f"{name}{unit} {ARROWS[metric['better']]}"


def run_name(report: Mapping[str, Any]) -> str:
    """What was evaluated, in a few words."""
    of = report["of"]
    return of["model"] if of["kind"] == "model" else f"predictions of {of['folder']}"


def own_table(report: Mapping[str, Any]) -> Table:
    """This run: a metric a line; beside it the interval, and the baselines that look at no picture."""
    metrics, spread, baselines = report["metrics"], report["intervals"], report["baselines"]
    columns = ["this run", *(["95 % interval"] if spread else []), *(f"no picture: {n}" for n in baselines)]
    lines = []
    for name, metric in metrics.items():
        unit = metric["unit"]
        cells = [Cell(number(report["scores"][name], unit), "own")]
        if spread:
            low, high = spread.get(name) or (None, None)
            cells.append(Cell("" if low is None else f"{number(low, unit)} – {number(high, unit)}"))
        cells += [Cell(number(found[name], unit)) for found in baselines.values()]
        lines.append(Line(column_header(name, metric), BASELINE, tuple(cells)))
    return Table(tuple(columns), tuple(lines))


def group_table(report: Mapping[str, Any]) -> Table:
    """The scores of each group of pictures, a line each; no line when nothing was grouped."""
    metrics = report["metrics"]
    lines = []
    for name, group in report["groups"].items():
        cells = [Cell(number(group["scores"][n], metric["unit"])) for n, metric in metrics.items()]
        lines.append(Line(name, BASELINE, (Cell(str(group["evaluated"])), *cells)))
    return Table(("pictures", *(column_header(n, m) for n, m in metrics.items())), tuple(lines))


def published_tables(report: Mapping[str, Any]) -> tuple[list[tuple[str, Table]], list[str]]:
    """Published rows beside this run, a table for each protocol, best first; and the sources, by their numbers.

    Numbers of different protocols never share a table: this run is in that of its own protocol only. Each table has a
    title that names the protocol. None is there when nothing is published.
    """
    metrics = report["metrics"]
    rows = [row for row in report["published"] if set(row["scores"]) & set(metrics)]
    sources = list(dict.fromkeys(_source(row) for row in rows))
    own = report["protocol"]["id"]
    ids = sorted({row["protocol"] for row in rows}, key=lambda id: (id != own, id))
    tables = []
    for id in ids:
        part = [row for row in rows if row["protocol"] == id]
        title = f"Published by {id}" + (
            "" if id == own else f" ({protocol_title(id)}): not comparable with this run"
        )
        tables.append((title, _published_table(report, part, sources, id == own)))
    return tables, sources


def _published_table(
    report: Mapping[str, Any], rows: list[Mapping[str, Any]], sources: Sequence[str], with_own: bool
) -> Table:
    """Published rows of one protocol, of the metrics that any has, best first; this run above them if ``with_own``."""
    metrics = report["metrics"]
    names = [name for name in metrics if any(name in row["scores"] for row in rows)]
    first = names[0]
    worse = 1 if metrics[first]["better"] == "lower" else -1
    rows = sorted(rows, key=lambda row: worse * row["scores"].get(first, worse * math.inf))
    own = tuple(Cell(number(report["scores"][n], metrics[n]["unit"])) for n in names)
    lines = [Line(f"this run: {run_name(report)}", OURS, own)] if with_own else []
    for row in rows:
        source = f"[{sources.index(_source(row)) + 1}]"
        lines.append(Line(row["method"], PUBLISHED, _cells(row, names), source, row["note"]))
    return Table(tuple(column_header(n, metrics[n]) for n in names), tuple(lines))


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Cell, ...]:
    """A published row's numbers, with as many digits as were printed."""
    said, doubts = row["printed"], row["doubts"]
    return tuple(
        Cell(said[n], "doubt" if n in doubts else "", doubts.get(n, "")) if n in said else Cell()
        for n in names
    )


def _source(row: Mapping[str, Any]) -> str:
    table = f", table {row['table']}" if row["table"][0].isdigit() else ""
    return f"{row['source']}{table}. {row['url']}{_READ[row['read']]}"


# How far to trust a copy of a number, for a reader.
_READ = {
    "paper": "",
    "repository": "",
    "figure": " (read off a figure)",
    "quoted": " (not seen there, found quoted elsewhere: check before use)",
}


def summary_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What decides and describes the numbers, as pairs of words."""
    of, protocol, data, have = report["of"], report["protocol"], report["data"], report["counts"]
    said = [("evaluated", run_name(report))]
    if of["kind"] == "model":
        said += [("model digest", of["digest"][:16]), ("asked", _asked(of))]
    benchmark = report["benchmark"]
    if benchmark:
        said.append(("benchmark", f"{benchmark['id']}: {benchmark['title']}"))
    said += [
        ("protocol", f"{protocol['id']} ({protocol['fingerprint']}): {protocol['title']}"),
        ("its settings", _settings(protocol["settings"])),
        ("data", f"{data['name']}, {data['count']} pictures, sha256 {data['sha256'][:16]}"),
        ("pictures", counts_text(have)),
    ]
    said += [("not as the protocol", line) for line in report["deviations"]]
    said += [
        ("command", " ".join(report["command"])),
        ("made", f"{report['made']} with {', '.join(f'{k} {v}' for k, v in report['versions'].items())}"),
        ("took", f"{report['seconds']:g} s" + (f" on {report['device']}" if report["device"] else "")),
    ]
    return [(name, text) for name, text in said if text]


def _asked(of: Mapping[str, Any]) -> str:
    size = of["size"]
    words = [
        f"task {of['task']}",
        f"seed {of['seed']}",
        "native size" if size == 0 else f"longest edge {size}",
    ]
    words += [f"ensemble of {of['ensemble']}"] if of["ensemble"] > 1 else []
    return ", ".join([*words, of["dtype"]])


def _settings(settings: Mapping[str, Any]) -> str:
    skip = ("name", "version", "metrics", "target", "spaces", "seed")
    words = []
    for key, value in settings.items():
        if key in skip or (value in (None, "", 0, []) and key != "size"):
            continue
        if key == "size":
            value = {None: "the model's own", 0: "native"}.get(value, value)
        words.append(
            f"{key.replace('_', ' ')} {' to '.join(map(str, value)) if isinstance(value, list) else value}"
        )
    return ", ".join(words)


def counts_text(have: Mapping[str, Any]) -> str:
    """How many were evaluated, skipped and failed, in words."""
    words = [f"{have['evaluated']} evaluated"]
    for status in ("skipped", "failed"):
        words += [f"{n} {status} ({why})" for why, n in have[status].items()]
    words += [f"{have['waiting']} waiting"] if have["waiting"] else []
    return ", ".join(words)
