"""Writes, reads and checks the files of a report: `report.json`, `report.md` and `report.html`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..io import FormatError, atomic_write, check_types, check_values, escape, parse_object, quoted, to_json
from .examples import ReportExample
from .html_report import html_document
from .markdown import markdown_document
from .protocol import EvaluationError

SCHEMA = "twofold-report/2"
FILE = "report.json"
Report = dict[str, Any]


def write_report(out: Path, report: Report, examples: Sequence[ReportExample] = ()) -> dict[str, Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``, each atomically, and return their paths.

    Raises:
        FileExistsError: one of the files exists and the folder has no valid ``report.json``.
    """
    paths = {kind: out / f"report.{kind}" for kind in ("json", "md", "html")}
    _check_replaceable(paths.values())
    texts = {
        "json": to_json(report, indent=1) + "\n",
        "md": markdown_document(report),
        "html": html_document(report, examples),
    }
    for kind, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(texts[kind], "utf-8")
    return paths


def _check_replaceable(paths: Iterable[Path]) -> None:
    existing = [path for path in paths if os.path.lexists(path)]
    if not existing:
        return
    try:
        read_report(existing[0].parent)
    except EvaluationError:
        reason = "it exists and twofold did not write it; move it, or choose another --out"
        raise FileExistsError(errno.EEXIST, reason, str(existing[0])) from None


def read_report(path: Path) -> Report:
    """Read a report from its ``report.json``, or from the folder of that file.

    Raises:
        EvaluationError: the file cannot be read or is not a report.
    """
    file = path / FILE if path.is_dir() else path
    try:
        report = parse_object(file.read_bytes(), "it")
        if report.get("schema") != SCHEMA:
            raise FormatError(f"its schema is not {SCHEMA}")
        _check_report(report)
    except OSError as error:
        raise EvaluationError(
            f"{escape(file)} cannot be read ({error.strerror}); pass a folder that twofold evaluate wrote"
        ) from None
    except FormatError as error:
        raise EvaluationError(f"{escape(file)} is not a report of twofold evaluate ({error})") from None
    return report


# Entries that comparisons read.
_TYPES: dict[str, Any] = {
    "subject": dict,
    "subject.kind": str,
    "protocol.id": str,
    "protocol.fingerprint": str,
    "protocol.settings": dict,
    "protocol.settings.target": str,
    "data.name": str,
    "data.sha256": str,
    "ids": str | list,
    "counts.evaluated": int,
    "counts.pending": int,
    "counts.skipped": dict,
    "counts.failed": dict,
    "metrics": dict,
    "scores": dict,
    "deviations": list,
    "warnings": list,
    "benchmark": dict | None,
}


def _check_report(report: Report) -> None:
    """FormatError if an entry that comparisons read has a wrong type."""
    check_types(report, _TYPES, "it")
    check_types(report["subject"], {"model" if report["subject"]["kind"] == "model" else "folder": str}, "it")
    if report["benchmark"] is not None:
        check_types(report["benchmark"], {"title": str}, "its benchmark")
    check_values(report["metrics"], dict, "its metrics")
    for name, metric in report["metrics"].items():
        check_types(metric, {"unit": str, "better": str}, f"its metric {quoted(name)}")
        if metric["better"] not in ("lower", "higher"):
            raise FormatError(f"its metric {quoted(name)} is better {quoted(metric['better'])}")
    check_values(
        {n: report["scores"].get(n, ...) for n in report["metrics"]}, int | float | None, "its scores"
    )
    for key in ("deviations", "warnings"):
        if not all(isinstance(line, str) for line in report[key]):
            raise FormatError(f"its {key} are not lines of text")
