"""The report of an evaluation: one record, written as JSON, Markdown and HTML."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..io import escape
from .alignment_checks import fit_warnings
from .benchmarks import Benchmark
from .label_checks import label_warnings
from .measure import get_metrics
from .pose import OKS, is_pose, pose_scores
from .protocol import EvaluationError
from .published import published
from .report_file import SCHEMA, Report
from .rows import Row
from .run import Evaluation
from .summary import baseline_scores, counts, intervals, ranked, scores

# Failures listed in a report; the rest are in the rows.
MAX_LISTED = 20
MAX_GROUPS = 40
# Degrees by which another frame must fit better before a warning.
FRAME_MARGIN = 5.0
_PACKAGES = ("twofold", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True)
class RunMetadata:
    """The part of a report that does not depend on the rows.

    Attributes:
        subject: the evaluated model with its settings, or the folder of predictions.
        benchmark: the benchmark of the data; None for other data.
        selected: ids of the requested samples.
        deviations: deviations from the protocol's settings, a line each.
        command: the command line.
        device: the device that the model ran on.
        notes: warnings that do not depend on the scores.
        group: key of the manifest's rows by which scores are also reported separately.
    """

    subject: Mapping[str, Any]
    benchmark: Benchmark | None
    selected: Sequence[str]
    deviations: Sequence[str] = ()
    command: Sequence[str] = ()
    device: str = ""
    notes: Sequence[str] = ()
    group: str = ""


def assemble(job: Evaluation, metadata: RunMetadata, rows: Mapping[str, Row]) -> Report:
    """Make the report of an evaluation, as JSON values, from the rows of the selected samples.

    A score that is NaN or infinite becomes None.
    """
    protocol, metrics = job.protocol, get_metrics(job.protocol, job.classes)
    chosen = [rows[id] for id in metadata.selected if id in rows]
    done = sorted(row["id"] for row in chosen if row["status"] == "done")
    pose = is_pose(protocol)
    values = pose_scores(job.folder, chosen, metadata.selected) if pose else scores(metrics, chosen)
    confidence = {} if pose else intervals(metrics, chosen)
    benchmark = metadata.benchmark
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
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
        "subject": dict(metadata.subject),
        "data": {**job.identity["data"], "folder": escape(job.folder.root), "count": len(job.folder)},
        "counts": counts(chosen, len(metadata.selected)),
        "ids": hashlib.sha256("\n".join(done).encode()).hexdigest()[:12],
        "scores": {name: _number(value) for name, value in values.items()},
        "intervals": {name: list(bounds) for name, bounds in confidence.items()},
        "metrics": {m.name: {"unit": m.unit, "better": m.better} for m in metrics},
        "baselines": {
            name: {k: _number(v) for k, v in values.items()}
            for name, values in baseline_scores(metrics, chosen).items()
        },
        "group": metadata.group,
        "groups": {} if pose else _groups(job, metadata, chosen),
        "published": published(benchmark.name) if benchmark else [],
        "examples": _examples(OKS if pose else metrics[0], chosen),
        "failed": [_listed(row) for row in chosen if row["status"] == "failed"][:MAX_LISTED],
        "skipped": [_listed(row) for row in chosen if row["status"] == "skipped"][:MAX_LISTED],
        "warnings": _warnings(job, metadata, chosen),
        "deviations": list(metadata.deviations),
        "device": metadata.device,
        "seconds": round(sum(row.get("seconds", 0.0) for row in chosen), 1),
        "versions": versions(),
    }


def _benchmark(benchmark: Benchmark | None) -> dict[str, Any] | None:
    if benchmark is None:
        return None
    fields = {k: v for k, v in asdict(benchmark).items() if k in ("name", "title", "split", "count", "notes")}
    return {"id": benchmark.id, **fields, "converter": benchmark.converter}


def _groups(job: Evaluation, metadata: RunMetadata, rows: Sequence[Row]) -> dict[str, Any]:
    """The scores over the images of each value of the manifest's entry ``metadata.group``."""
    if not metadata.group:
        return {}
    values = {row["id"]: str(row.get(metadata.group, "none")) for row in job.folder.rows}
    names = sorted({values[row["id"]] for row in rows})
    if len(names) > MAX_GROUPS:
        raise EvaluationError(
            f"{metadata.group!r} has {len(names)} values in the manifest, more than {MAX_GROUPS}; pass another --group"
        )
    metrics = get_metrics(job.protocol, job.classes)
    groups = {}
    for name in names:
        group = [row for row in rows if values[row["id"]] == name]
        group_scores = {k: _number(v) for k, v in scores(metrics, group).items()}
        groups[name] = {"evaluated": sum(row["status"] == "done" for row in group), "scores": group_scores}
    return groups


def _examples(metric: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """The ids of the best, the median and the worst image by the first metric, with their scores."""
    order = ranked(metric, rows)
    if not order:
        return {"metric": metric.name}
    positions = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    examples = {
        k: {"id": order[i]["id"], "value": order[i]["values"][metric.name]} for k, i in positions.items()
    }
    return {"metric": metric.name, **examples}


def _warnings(job: Evaluation, metadata: RunMetadata, rows: Sequence[Row]) -> list[str]:
    """Reasons why the scores may be wrong, or are not comparable with published scores of the benchmark."""
    found = list(metadata.notes)
    count = counts(rows, len(metadata.selected))
    if metadata.benchmark is not None and len(job.folder) != metadata.benchmark.count:
        found.append(
            f"the folder has {len(job.folder)} images, and {metadata.benchmark.name} has "
            f"{metadata.benchmark.count}: these scores are not comparable with the benchmark's"
        )
    if len(metadata.selected) < len(job.folder):
        found.append(f"only {len(metadata.selected)} of the folder's {len(job.folder)} images were requested")
    failed = sum(count["failed"].values())
    if failed:
        found.append(
            f"{failed} predictions are missing or damaged and excluded from the scores; they are listed below"
        )
    found += _frame_warnings(rows)
    found += fit_warnings(rows, job.protocol)
    found += label_warnings(rows, job.protocol)
    if count["pending"]:
        found.append(
            f"{count['pending']} images are not evaluated yet; run the command again, or its other shards"
        )
    if count["resized"]:
        found.append(f"{count['resized']} predictions were resized to their images")
    return found


def _frame_warnings(rows: Sequence[Row]) -> list[str]:
    """A warning if vectors match the truth much better in another camera frame than in the declared one."""
    angles = [row["frames"] for row in rows if row["status"] == "done" and "frames" in row]
    if not angles:
        return []
    means = {frame: sum(by_frame[frame] for by_frame in angles) / len(angles) for frame in angles[0]}
    best = min(means, key=lambda frame: means[frame])
    if means["RUB"] - means[best] < FRAME_MARGIN:
        return []
    return [
        f"with other signs ({best} in place of RUB) the mean angular error of the vectors is {means[best]:.1f} "
        f"degrees instead of {means['RUB']:.1f}: check their frame"
    ]


def _listed(row: Row) -> dict[str, str]:
    return {key: row[key] for key in ("id", "reason", "error") if key in row}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Versions of the libraries that compute the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
