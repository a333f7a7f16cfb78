"""Comparison of reports; numbers that are not comparable are marked."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..io import atomic_write, escape_html as escape, escape_markdown
from .html_report import definition_list, document, html_table
from .markdown import markdown_table, plain_table
from .protocol import EvaluationError
from .report_file import Report
from .tables import BASELINE, Cell, Table, TableRow, column_header, counts_text, format_score, run_name


@dataclass(frozen=True)
class ComparedRun:
    """One of the reports: its column and name, how it differs from the first, and notes."""

    column: str
    name: str
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether its scores may be compared with the first's."""
        return not self.differences


@dataclass(frozen=True)
class Comparison:
    """Scores, one line for each metric and one column for each run."""

    title: str
    table: Table
    runs: tuple[ComparedRun, ...]

    def legend(self) -> list[tuple[str, str]]:
        """Each column and a description of its run."""
        return [(run.column, "; ".join([run.name, *run.notes])) for run in self.runs]

    def warnings(self) -> list[str]:
        """Which runs are not comparable and why, a line each."""
        return [
            f"{run.column} is not comparable with {self.runs[0].column}: {', '.join(run.differences)}"
            for run in self.runs
            if run.differences
        ]


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why the numbers of two reports are not comparable; empty when they are."""
    found = []
    mine, theirs = first["protocol"], other["protocol"]
    if mine["id"] != theirs["id"]:
        found.append(f"another protocol ({theirs['id']} instead of {mine['id']})")
    elif mine["fingerprint"] != theirs["fingerprint"]:
        found.append(f"another setting of {mine['id']} ({_changed(mine['settings'], theirs['settings'])})")
    if first["data"]["sha256"] != other["data"]["sha256"]:
        found.append(f"other data ({other['data']['name']} instead of {first['data']['name']})")
    elif first["ids"] != other["ids"]:
        n, m = other["counts"]["evaluated"], first["counts"]["evaluated"]
        found.append("other images" + (f" ({n} evaluated instead of {m})" if n != m else ""))
    return found


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    differ = sorted(k for k in {*a, *b} if a.get(k) != b.get(k))
    return ", ".join(f"{k} {_value_text(k, b.get(k))} instead of {_value_text(k, a.get(k))}" for k in differ)


def _value_text(key: str, value: Any) -> str:
    if key == "size":
        return {None: "the model's own", 0: "native"}.get(value, str(value))
    return "none" if value in (None, "", []) else str(value)


def compare(reports: Sequence[Report]) -> Comparison:
    """Several reports in one table; the best number of each metric is marked among those comparable with the first.

    Raises:
        EvaluationError: no report, or reports of different targets, or aligned in different spaces, such as depth and
            its logarithm.
    """
    if not reports:
        raise EvaluationError("pass at least one report")
    first = reports[0]
    names = [n for n in first["metrics"] if all(n in r["metrics"] for r in reports)]
    if not names or len({r["protocol"]["settings"]["target"] for r in reports}) > 1:
        ids = ", ".join(sorted({r["protocol"]["id"] for r in reports}))
        raise EvaluationError(f"these reports have no score in common ({ids}); compare those of one task")
    spaces = {str(r["protocol"]["settings"]["spaces"]): r["protocol"]["id"] for r in reports}
    if len(spaces) > 1:
        ids = " and ".join(spaces.values())
        raise EvaluationError(
            f"scores by {ids} are of predictions aligned in different spaces and do not share a table; "
            "compare reports of one space"
        )
    runs = tuple(_run(i, report, reports) for i, report in enumerate(reports))
    lines = tuple(_line(name, first["metrics"][name], reports, runs) for name in names)
    columns = tuple(run.column if run.comparable else f"{run.column} ≠" for run in runs)
    where = first["benchmark"]["title"] if first["benchmark"] else first["data"]["name"]
    return Comparison(
        f"{len(reports)} runs on {where}, {first['protocol']['id']}", Table(columns, lines), runs
    )


def _run(index: int, report: Report, reports: Sequence[Report]) -> ComparedRun:
    column = ascii_uppercase[index] if index < len(ascii_uppercase) else f"{index + 1}"
    found = differences(reports[0], report)
    notes = [
        *_settings(report, reports),
        counts_text(report["counts"]),
        *report["deviations"],
        *report["warnings"],
    ]
    return ComparedRun(column, run_name(report), tuple(found), tuple(notes))


def _settings(report: Report, reports: Sequence[Report]) -> list[str]:
    """The settings of a run that differ between the runs."""
    keys = ("task", "size", "seed", "ensemble", "dtype", "digest", "protocol", "frame", "scale")
    differ = (
        k for k in keys if len({str(r["subject"].get(k)) for r in reports}) > 1 and k in report["subject"]
    )
    return [
        f"{k} {str(report['subject'][k])[:16] if k == 'digest' else report['subject'][k]}" for k in differ
    ]


def _line(
    name: str, metric: Mapping[str, str], reports: Sequence[Report], runs: Sequence[ComparedRun]
) -> TableRow:
    values = [report["scores"][name] for report in reports]
    known = [v for v, run in zip(values, runs, strict=True) if run.comparable and v is not None]
    best = (min if metric["better"] == "lower" else max)(known) if len(known) > 1 else None
    cells = []
    for value, run in zip(values, runs, strict=True):
        mark = "best" if value is not None and value == best else ""
        why = "" if run.comparable else f"not comparable: {', '.join(run.differences)}"
        cells.append(Cell(format_score(value, metric["unit"]), "doubt" if why else mark, why))
    return TableRow(column_header(name, metric), BASELINE, tuple(cells))


def comparison_text(found: Comparison) -> list[str]:
    """For a terminal."""
    return [*plain_table(found.table), *(f"{column}: {text}" for column, text in found.legend())]


def comparison_markdown(found: Comparison) -> str:
    """As a Markdown page."""
    lines = [f"# {escape_markdown(found.title)}", ""]
    for warning in found.warnings():
        lines += [f"> **Warning**: {escape_markdown(warning)}.", ""]
    legend = [f"- {column}: {escape_markdown(text)}" for column, text in found.legend()]
    return "\n".join([*lines, *markdown_table(found.table), "", *legend]) + "\n"


def comparison_page(found: Comparison) -> str:
    """As an HTML page."""
    body = [
        f"<h1>{escape(found.title)}</h1>",
        *(f'<p class="warn">{escape(warning)}.</p>' for warning in found.warnings()),
        html_table(found.table),
        "<h2>Runs</h2>",
        definition_list(found.legend()),
    ]
    return document(found.title, body)


# Marks the files that `write_comparison` may replace; Markdown and HTML both render it as nothing.
_MARK = "<!-- twofold comparison -->"


def write_comparison(out: Path, found: Comparison) -> dict[str, Path]:
    """Write ``comparison.md`` and ``comparison.html``, atomically, and return their paths.

    Raises:
        FileExistsError: such a file exists and is not a comparison of this function.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = {kind: out / f"comparison.{kind}" for kind in ("md", "html")}
    texts = {"md": comparison_markdown(found), "html": comparison_page(found)}
    for path in paths.values():
        if os.path.lexists(path) and not (path.is_file() and _MARK.encode() in path.read_bytes()):
            reason = "it exists and is no comparison of twofold's; move it, or choose another --out"
            raise FileExistsError(errno.EEXIST, reason, str(path))
    for kind, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(f"{texts[kind]}{_MARK}\n", "utf-8")
    return paths
