"""What an evaluation says at its end: one record, written as JSON for programs and as two pages for people."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..io import FormatError, atomic_write, check_types, check_values, escape, parse_object, quoted, to_json
from .alignment_checks import fit_warnings
from .benchmarks import Benchmark
from .examples import ReportExample
from .html_report import page
from .label_checks import label_warnings
from .markdown import document
from .measure import get_metrics
from .pose import OWN, is_pose, pose_scores
from .protocol import EvaluationError
from .published import published
from .rows import Row
from .run import Evaluation
from .summary import baseline_scores, counts, intervals, ranked, scores

SCHEMA = "twofold-report/1"
FILE = "report.json"
# Failures named in a report; the rest are in the rows.
NAMED = 20
MOST_GROUPS = 40
# Degrees by which another frame must fit better before it is suspected.
FRAME_DOUBT = 5.0
_PACKAGES = ("twofold", "torch", "diffusers", "transformers", "numpy")

Report = dict[str, Any]


@dataclass(frozen=True)
class RunMetadata:
    """What a report says beside the numbers.

    Attributes:
        of: what was evaluated: a model with its settings, or a folder of predictions.
        benchmark: None for one's own data.
        selected: ids that were to be evaluated.
        deviations: where the run is not as the protocol has it, a line each.
        command: that was typed.
        device: that the model ran on.
        notes: warnings that are known before anything is scored.
        group: entry of the manifest's rows by which scores are given apart as well.
    """

    of: Mapping[str, Any]
    benchmark: Benchmark | None
    selected: Sequence[str]
    deviations: Sequence[str] = ()
    command: Sequence[str] = ()
    device: str = ""
    notes: Sequence[str] = ()
    group: str = ""


def assemble(job: Evaluation, metadata: RunMetadata, rows: Mapping[str, Row]) -> Report:
    """The record of an evaluation, from the rows of what was selected. JSON values only; None is no number."""
    protocol, metrics = job.protocol, get_metrics(job.protocol, job.classes)
    chosen = [rows[id] for id in metadata.selected if id in rows]
    done = sorted(row["id"] for row in chosen if row["status"] == "done")
    pose = is_pose(protocol)
    said = pose_scores(job.folder, chosen, metadata.selected) if pose else scores(metrics, chosen)
    spread = {} if pose else intervals(metrics, chosen)
    benchmark = metadata.benchmark
    return {
        "schema": SCHEMA,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(metadata.command),
        "benchmark": _benchmark(benchmark),
        "protocol": {
            "id": protocol.id,
            "fingerprint": protocol.fingerprint,
            "title": protocol.title,
            "source": protocol.source,
            "notes": protocol.notes,
            "settings": protocol.settings,
        },
        "of": dict(metadata.of),
        "data": {**job.identity["data"], "folder": escape(job.folder.root), "count": len(job.folder)},
        "counts": counts(chosen, len(metadata.selected)),
        "ids": hashlib.sha256("\n".join(done).encode()).hexdigest()[:12],
        "scores": {name: _number(value) for name, value in said.items()},
        "intervals": {name: list(between) for name, between in spread.items()},
        "metrics": {m.name: {"unit": m.unit, "better": m.better} for m in metrics},
        "baselines": {
            name: {k: _number(v) for k, v in found.items()}
            for name, found in baseline_scores(metrics, chosen).items()
        },
        "group": metadata.group,
        "groups": {} if pose else _groups(job, metadata, chosen),
        "published": published(benchmark.name) if benchmark else [],
        "examples": _examples(OWN if pose else metrics[0], chosen),
        "failed": [_named(row) for row in chosen if row["status"] == "failed"][:NAMED],
        "skipped": [_named(row) for row in chosen if row["status"] == "skipped"][:NAMED],
        "warnings": _warnings(job, metadata, chosen),
        "deviations": list(metadata.deviations),
        "device": metadata.device,
        "seconds": round(sum(row.get("seconds", 0.0) for row in chosen), 1),
        "versions": versions(),
    }


def _benchmark(benchmark: Benchmark | None) -> dict[str, Any] | None:
    if benchmark is None:
        return None
    said = {k: v for k, v in asdict(benchmark).items() if k in ("name", "title", "split", "count", "notes")}
    return {"id": benchmark.id, **said, "converter": benchmark.converter}


def _groups(job: Evaluation, metadata: RunMetadata, rows: Sequence[Row]) -> dict[str, Any]:
    """The scores of each value of the manifest's entry ``metadata.group``: its pictures alone."""
    if not metadata.group:
        return {}
    values = {row["id"]: str(row.get(metadata.group, "none said")) for row in job.folder.rows}
    names = sorted({values[row["id"]] for row in rows})
    if len(names) > MOST_GROUPS:
        raise EvaluationError(
            f"{metadata.group!r} has {len(names)} values in the manifest; group by another entry"
        )
    metrics = get_metrics(job.protocol, job.classes)
    found = {}
    for name in names:
        own = [row for row in rows if values[row["id"]] == name]
        said = {k: _number(v) for k, v in scores(metrics, own).items()}
        found[name] = {"evaluated": sum(row["status"] == "done" for row in own), "scores": said}
    return found


def _examples(metric: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """The ids of the best, the middle and the worst picture by the first metric, with their scores."""
    order = ranked(metric, rows)
    if not order:
        return {"metric": metric.name}
    places = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    found = {k: {"id": order[i]["id"], "value": order[i]["values"][metric.name]} for k, i in places.items()}
    return {"metric": metric.name, **found}


def _warnings(job: Evaluation, metadata: RunMetadata, rows: Sequence[Row]) -> list[str]:
    """What keeps these numbers from being the benchmark's."""
    said = list(metadata.notes)
    have = counts(rows, len(metadata.selected))
    if metadata.benchmark is not None and len(job.folder) != metadata.benchmark.count:
        said.append(
            f"the folder has {len(job.folder)} pictures, and {metadata.benchmark.name} is over "
            f"{metadata.benchmark.count}: these numbers are not the benchmark's"
        )
    if len(metadata.selected) < len(job.folder):
        said.append(
            f"only {len(metadata.selected)} of the folder's {len(job.folder)} pictures were asked for"
        )
    failed = sum(have["failed"].values())
    if failed:
        said.append(f"{failed} predictions are missing or broken and are in no score; they are listed below")
    said += _frame(rows)
    said += fit_warnings(rows, job.protocol)
    said += label_warnings(rows, job.protocol)
    if have["waiting"]:
        said.append(
            f"{have['waiting']} pictures are not evaluated yet; run the command again, or its other shards"
        )
    if have["resized"]:
        said.append(f"{have['resized']} predictions were brought to the size of their pictures")
    return said


def _frame(rows: Sequence[Row]) -> list[str]:
    """That vectors fit the truth much better in another frame than in the one they are said to be in."""
    tried = [row["frames"] for row in rows if row["status"] == "done" and "frames" in row]
    if not tried:
        return []
    means = {frame: sum(one[frame] for one in tried) / len(tried) for frame in tried[0]}
    best = min(means, key=lambda frame: means[frame])
    if means["RUB"] - means[best] < FRAME_DOUBT:
        return []
    return [
        f"with other signs ({best} in place of RUB) the vectors are {means[best]:.1f} degrees off on average, not "
        f"{means['RUB']:.1f}: is their frame right?"
    ]


def _named(row: Row) -> dict[str, str]:
    return {key: row[key] for key in ("id", "why", "error") if key in row}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Of what computes the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(out: Path, report: Report, examples: Sequence[ReportExample] = ()) -> dict[str, Path]:
    """Writes ``report.json``, ``report.md`` and ``report.html``, each whole, and gives their paths."""
    paths = {kind: out / f"report.{kind}" for kind in ("json", "md", "html")}
    texts = {
        "json": to_json(report, indent=1) + "\n",
        "md": document(report),
        "html": page(report, examples),
    }
    for kind, path in paths.items():
        with atomic_write(path) as temporary:
            temporary.write_text(texts[kind], "utf-8")
    return paths


def read(path: Path) -> Report:
    """The report of a folder, or of its ``report.json``.

    Raises:
        EvaluationError: there is none.
    """
    file = path / FILE if path.is_dir() else path
    try:
        report = parse_object(file.read_bytes(), "it")
        if report.get("schema") != SCHEMA:
            raise FormatError(f"its schema is not {SCHEMA}")
        _check_report(report)
    except OSError as error:
        raise EvaluationError(
            f"{escape(file)} cannot be read ({error.strerror}); give a folder that twofold evaluate wrote"
        ) from None
    except FormatError as error:
        raise EvaluationError(f"{escape(file)} is no report of twofold evaluate ({error})") from None
    return report


# What comparisons read of a report.
_TYPES: dict[str, Any] = {
    "of": dict,
    "of.kind": str,
    "protocol.id": str,
    "protocol.fingerprint": str,
    "protocol.settings": dict,
    "protocol.settings.target": str,
    "data.name": str,
    "data.sha256": str,
    "ids": str | list,
    "counts.evaluated": int,
    "counts.waiting": int,
    "counts.skipped": dict,
    "counts.failed": dict,
    "metrics": dict,
    "scores": dict,
    "deviations": list,
    "warnings": list,
    "benchmark": dict | None,
}


def _check_report(report: Report) -> None:
    """FormatError for the first entry that comparisons read and that is of another type."""
    check_types(report, _TYPES, "it")
    check_types(report["of"], {"model" if report["of"]["kind"] == "model" else "folder": str}, "it")
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
