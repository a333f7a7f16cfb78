"""Tables that compare the scores of several reports; scores that are not comparable are marked."""

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
    """One of the compared reports.

    Attributes:
        column: header of its column: a letter, or a number after Z.
        name: the evaluated model or folder of predictions.
        differences: why its scores are not comparable with those of the first report; empty if they are.
        notes: settings, counts, deviations and warnings.
    """

    column: str
    name: str
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether its scores may be compared with those of the first report."""
        return not self.differences


@dataclass(frozen=True)
class Comparison:
    """Scores of several runs: a row for each metric and a column for each run."""

    title: str
    table: Table
    runs: tuple[ComparedRun, ...]

    def legend(self) -> list[tuple[str, str]]:
        """Each column and a description of its run."""
        return [(run.column, "; ".join([run.name, *run.notes])) for run in self.runs]

    def warnings(self) -> list[str]:
        """A line for each run that is not comparable with the first, with the reasons."""
        return [
            f"{run.column} is not comparable with {self.runs[0].column}: {', '.join(run.differences)}"
            for run in self.runs
            if run.differences
        ]


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The reasons why the scores of two reports are not comparable; empty if they are."""
    found = []
    a, b = first["protocol"], other["protocol"]
    if a["id"] != b["id"]:
        found.append(f"another protocol ({b['id']} instead of {a['id']})")
    elif a["fingerprint"] != b["fingerprint"]:
        found.append(f"another setting of {a['id']} ({_changed(a['settings'], b['settings'])})")
    if first["data"]["sha256"] != other["data"]["sha256"]:
        found.append(f"other data ({other['data']['name']} instead of {first['data']['name']})")
    elif first["ids"] != other["ids"]:
        n, expected = other["counts"]["evaluated"], first["counts"]["evaluated"]
        found.append("other images" + (f" ({n} evaluated instead of {expected})" if n != expected else ""))
    return found


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The entries that differ, as 'key B instead of A'."""
    differ = sorted(k for k in {*a, *b} if a.get(k) != b.get(k))
    return ", ".join(f"{k} {_value_text(k, b.get(k))} instead of {_value_text(k, a.get(k))}" for k in differ)


def _value_text(key: str, value: Any) -> str:
    if key == "size":
        return {None: "the model's own", 0: "native"}.get(value, str(value))
    return "none" if value in (None, "", []) else str(value)


def compare(reports: Sequence[Report]) -> Comparison:
    """Compare reports in one table. It marks the best score of each metric among runs comparable with the first.

    Raises:
        EvaluationError: no report is passed, or the reports score different targets, or predictions in different
            quantities (``EvalProtocol.spaces``), such as depth and its logarithm.
    """
    if not reports:
        raise EvaluationError("pass at least one report")
    first = reports[0]
    names = [n for n in first["metrics"] if all(n in r["metrics"] for r in reports)]
    if not names or len({r["protocol"]["settings"]["target"] for r in reports}) > 1:
        ids = ", ".join(sorted({r["protocol"]["id"] for r in reports}))
        raise EvaluationError(f"these reports have no metric in common ({ids}); compare reports of one task")
    protocol_by_spaces = {str(r["protocol"]["settings"]["spaces"]): r["protocol"]["id"] for r in reports}
    if len(protocol_by_spaces) > 1:
        ids = " and ".join(protocol_by_spaces.values())
        raise EvaluationError(
            f"{ids} align predictions in different spaces, such as depth and disparity, and their scores are not "
            "comparable; compare reports of one space"
        )
    runs = tuple(_run(i, report, reports) for i, report in enumerate(reports))
    rows = tuple(_row(name, first["metrics"][name], reports, runs) for name in names)
    columns = tuple(run.column if run.comparable else f"{run.column} ≠" for run in runs)
    data = first["benchmark"]["title"] if first["benchmark"] else first["data"]["name"]
    return Comparison(f"{len(reports)} runs on {data}, {first['protocol']['id']}", Table(columns, rows), runs)


def _run(index: int, report: Report, reports: Sequence[Report]) -> ComparedRun:
    column = ascii_uppercase[index] if index < len(ascii_uppercase) else f"{index + 1}"
    notes = [
        *_differing_settings(report, reports),
        counts_text(report["counts"]),
        *report["deviations"],
        *report["warnings"],
    ]
    return ComparedRun(column, run_name(report), tuple(differences(reports[0], report)), tuple(notes))


def _differing_settings(report: Report, reports: Sequence[Report]) -> list[str]:
    """The settings of the evaluated model or predictions that are not the same in all reports."""
    keys = ("task", "size", "seed", "ensemble", "dtype", "digest", "protocol", "frame", "scale")
    settings = report["subject"]
    differ = (k for k in keys if k in settings and len({str(r["subject"].get(k)) for r in reports}) > 1)
    return [f"{k} {str(settings[k])[:16] if k == 'digest' else settings[k]}" for k in differ]


def _row(
    name: str, metric: Mapping[str, str], reports: Sequence[Report], runs: Sequence[ComparedRun]
) -> TableRow:
    """The row of one metric."""
    values = [report["scores"][name] for report in reports]
    known = [v for v, run in zip(values, runs, strict=True) if run.comparable and v is not None]
    best = (min if metric["better"] == "lower" else max)(known) if len(known) > 1 else None
    cells = []
    for value, run in zip(values, runs, strict=True):
        mark = "best" if value is not None and value == best else ""
        reason = "" if run.comparable else f"not comparable: {', '.join(run.differences)}"
        cells.append(Cell(format_score(value, metric["unit"]), "flagged" if reason else mark, reason))
    return TableRow(column_header(name, metric), BASELINE, tuple(cells))


def comparison_text(comparison: Comparison) -> list[str]:
    """A comparison as lines of plain text."""
    return [*plain_table(comparison.table), *(f"{column}: {text}" for column, text in comparison.legend())]


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison as a Markdown page."""
    lines = [f"# {escape_markdown(comparison.title)}", ""]
    for warning in comparison.warnings():
        lines += [f"> **Warning**: {escape_markdown(warning)}.", ""]
    legend = [f"- {column}: {escape_markdown(text)}" for column, text in comparison.legend()]
    return "\n".join([*lines, *markdown_table(comparison.table), "", *legend]) + "\n"


def comparison_page(comparison: Comparison) -> str:
    """A comparison as an HTML page."""
    body = [
        f"<h1>{escape(comparison.title)}</h1>",
        *(f'<p class="warn">{escape(warning)}.</p>' for warning in comparison.warnings()),
        html_table(comparison.table),
        "<h2>Runs</h2>",
        definition_list(comparison.legend()),
    ]
    return document(comparison.title, body)


# Marks the files that `write_comparison` may replace; a Markdown or HTML viewer does not show it.
_MARK = "<!-- twofold comparison -->"


def write_comparison(out: Path, comparison: Comparison) -> dict[str, Path]:
    """Write ``comparison.md`` and ``comparison.html``, atomically, and return their paths.

    Raises:
        FileExistsError: one of the files exists and this function did not write it.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = {kind: out / f"comparison.{kind}" for kind in ("md", "html")}
    texts = {"md": comparison_markdown(comparison), "html": comparison_page(comparison)}
    for path in paths.values():
        if os.path.lexists(path) and not (path.is_file() and _MARK.encode() in path.read_bytes()):
            reason = "it exists and twofold did not write it; move it, or choose another --out"
            raise FileExistsError(errno.EEXIST, reason, str(path))
    for kind, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(f"{texts[kind]}{_MARK}\n", "utf-8")
    return paths
