"""Tables of scores, before they become text or HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARROWS = {"lower": "↓", "higher": "↑"}
# What a cell, or a line, is: shown in its own way.
OURS, BASELINE, PUBLISHED = "ours", "baseline", "published"


@dataclass(frozen=True)
class Cell:
    """A score as text; ``mark`` is ``doubt`` or ``best``, ``why`` what a reader is told of it."""

    text: str = ""
    mark: str = ""
    why: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: who, what kind, cells by column, and where it is from."""

    name: str
    kind: str
    cells: tuple[Cell, ...]
    source: str = ""


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


def heading(name: str, metric: Mapping[str, str]) -> str:
    """A column's head: name, unit, and which way is better."""
    unit = {"deg": " (°)", "": ""}.get(metric["unit"], f" ({metric['unit']})")
    return f"{name}{unit} {ARROWS[metric['better']]}"


def subject(report: Mapping[str, Any]) -> str:
    """What was evaluated, in a few words."""
    of = report["of"]
    return of["model"] if of["kind"] == "model" else f"predictions of {of['folder']}"


def score_table(report: Mapping[str, Any]) -> Table:
    """This run, the baselines that look at no picture, and what is published, a metric a column."""
    metrics = report["metrics"]

    def cells(scores: Mapping[str, Any]) -> tuple[Cell, ...]:
        units = {name: metric["unit"] for name, metric in metrics.items()}
        return tuple(Cell(number(scores[n], unit) if n in scores else "") for n, unit in units.items())

    lines = [Line(f"this run: {subject(report)}", OURS, cells(report["scores"]), report["protocol"]["id"])]
    spread = report["intervals"]
    if spread:
        texts = (spread.get(name) for name in metrics)
        units = (metric["unit"] for metric in metrics.values())
        between = tuple(
            Cell("" if pair is None else f"{number(pair[0], unit)} – {number(pair[1], unit)}")
            for pair, unit in zip(texts, units, strict=True)
        )
        lines.append(Line("  95 % over the choice of pictures", BASELINE, between))
    lines += [
        Line(f"no picture seen: {name}", BASELINE, cells(found))
        for name, found in report["baselines"].items()
    ]
    lines += [
        _published(row, report, cells) for row in report["published"] if set(row["scores"]) & set(metrics)
    ]
    return Table(tuple(heading(n, m) for n, m in metrics.items()), tuple(lines))


def _published(row: Mapping[str, Any], report: Mapping[str, Any]) -> Line:
    doubts, scores = row["doubts"], row["scores"]
    # As many digits as were printed.
    cells = tuple(
        Cell(f"{scores[n]:g}", "doubt" if n in doubts else "", doubts.get(n, "")) if n in scores else Cell()
        for n in report["metrics"]
    )
    other = "" if row["standard"] == report["protocol"]["settings"]["name"] else f"{row['standard']}; "
    read = "" if row["read"] in ("paper", "repository") else f" ({row['read']})"
    note = f"; {row['note']}" if row["note"] else ""
    table = f", table {row['table']}" if row["table"][0].isdigit() else ""
    source = f"{other}{row['source']}{table}{read}{note}"
    return Line(row["method"], PUBLISHED, cells, source)


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What decides and describes the numbers, as pairs of words."""
    of, protocol, data, have = report["of"], report["protocol"], report["data"], report["counts"]
    said = [("evaluated", subject(report))]
    if of["kind"] == "model":
        said += [("model digest", of["digest"][:16]), ("asked", _asked(of))]
    benchmark = report["benchmark"]
    if benchmark:
        said.append(("benchmark", f"{benchmark['id']}: {benchmark['title']}"))
    said += [
        ("protocol", f"{protocol['id']} ({protocol['fingerprint']}): {protocol['title']}"),
        ("its settings", _settings(protocol["settings"])),
        ("data", f"{data['name']}, {data['count']} pictures, sha256 {data['sha256'][:16]}"),
        ("pictures", counted(have)),
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


def counted(have: Mapping[str, Any]) -> str:
    """How many were evaluated, skipped and failed, in words."""
    words = [f"{have['evaluated']} evaluated"]
    for status in ("skipped", "failed"):
        words += [f"{n} {status} ({why})" for why, n in have[status].items()]
    words += [f"{have['waiting']} waiting"] if have["waiting"] else []
    return ", ".join(words)
