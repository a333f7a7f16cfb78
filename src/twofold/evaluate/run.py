"""Runs an evaluation: computes and stores one row for each image, and continues where an earlier run ended."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.folder import Folder, FolderError
from ..image import ImageError
from ..io import DiskFullError, Shard, first_line
from ..predict.finite import NonFiniteError
from ..sample import Sample
from .alignment_checks import fit_diagnostics
from .label_checks import label_range
from .measure import Sums, angle_by_frame, baselines, crop_to_window, get_metrics, measure, truth
from .pose import OKS, CocoResults, detections, is_pose, keypoint_similarity
from .predictions import MissingError, PredictionSource
from .protocol import EvalProtocol, EvaluationError
from .rows import Row, RowWriter, file_name, pack_all, read_all

# Keys of a header that locate the files on one machine.
_LOCATION_KEYS = ("root", "source")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: its data, predictions, protocol and output folder.

    Attributes:
        folder: samples with ground truth.
        source: where the predictions come from.
        protocol: how the predictions are scored.
        out: folder of the results.
        identity: everything that determines the scores, as JSON values; rows of another identity are rejected.
        classes: number of classes, for class ids.
        shard: the part of the samples that this process evaluates.
    """

    folder: Folder
    source: PredictionSource
    protocol: EvalProtocol
    out: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    shard: Shard = field(default_factory=Shard)

    def sample(self, index: int) -> tuple[Sample, dict[str, Any]]:
        """A sample, cropped to the protocol's window, and its row of the manifest with the image's path."""
        row = self.folder.rows[index]
        sample = crop_to_window(self.folder[index], self.protocol.window)
        return sample, self.with_image_path(row)

    def with_image_path(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the manifest with the path of its image."""
        return {**row, "image_path": str(self.folder.files / row["file_name"])}


def run(job: Evaluation, indices: Iterable[int] | None = None) -> Generator[Row]:
    """Evaluate samples (all, or those of ``indices``, in that order) and yield each row after it is written.

    The ``status`` of a row is ``done``; ``skipped`` if the sample has no valid truth; or ``failed``, with ``error``,
    if its prediction is missing or damaged. A later run computes failed rows again; it yields the others as they are,
    with ``kept``. The rows do not depend on the order, on interruptions or on the number of processes.

    Raises:
        EvaluationError: the output folder has another evaluation, or another process writes the same rows.
    """
    chosen = range(len(job.folder)) if indices is None else list(indices)
    chosen = job.shard.select(list(chosen))
    get_metrics(job.protocol, job.classes)  # unknown metrics are reported before anything is predicted
    job.out.mkdir(parents=True, exist_ok=True)
    stored = read_all(job.out, job.identity)
    with closing(RowWriter(job.out / file_name(job.shard), job.identity)) as writer:
        for index in chosen:
            row = _reusable_row(job, index, stored)
            if row is not None:
                yield {**row, "kept": True}
                continue
            row = _row(job, index)
            writer.write(row)
            yield row


def _reusable_row(job: Evaluation, index: int, stored: Mapping[str, Row]) -> Row | None:
    """The stored row of a sample if it was skipped, or evaluated with the same prediction; else None."""
    entry = job.folder.rows[index]
    row = stored.get(entry["id"])
    if row is None or row["status"] == "failed":
        return None
    try:
        fingerprint = job.source.fingerprint(entry["id"], job.with_image_path(entry))
    except (EvaluationError, OSError):
        return None
    return row if dict(fingerprint) == row.get("prediction", {}) or row["status"] == "skipped" else None


def _row(job: Evaluation, index: int) -> Row:
    """The row of one sample; errors of its files are recorded in it."""
    start = time.perf_counter()
    row: Row = {"id": job.folder.rows[index]["id"]}
    try:
        sample, entry = job.sample(index)
    except DiskFullError:
        raise
    except (FolderError, ImageError, EvaluationError, OSError) as error:
        return {**row, "status": "failed", "reason": "damaged data", "error": first_line(error)}
    row["size"] = list(sample.image.shape[-2:])
    if job.protocol.target not in sample.targets:
        return {**row, "status": "skipped", "reason": f"no {job.protocol.target}"}
    if not bool(truth(sample, job.protocol)[1].any()):
        return {**row, "status": "skipped", "reason": "no valid pixel"}
    try:
        row["prediction"] = dict(job.source.fingerprint(row["id"], entry))
        if is_pose(job.protocol):
            people = _detections(job, sample, entry)
            return {**row, "status": "done", **people, "seconds": round(time.perf_counter() - start, 3)}
        prediction = job.source(sample, entry)
        size = prediction.stored_size or tuple(prediction.map.shape[-2:])
        if size != tuple(sample.image.shape[-2:]):
            row["resized"] = list(size)
        sums, _ = measure(prediction.map, sample, job.protocol, job.classes)
    except MissingError as error:
        return {**row, "status": "failed", "reason": "missing prediction", "error": first_line(error)}
    except DiskFullError:
        raise
    except (EvaluationError, ImageError, NonFiniteError, OSError, RuntimeError, MemoryError) as error:
        return {**row, "status": "failed", "reason": "damaged prediction", "error": first_line(error)}
    if not all(bool(vector.isfinite().all()) for vector in sums.values()):
        return {
            **row,
            "status": "failed",
            "reason": "damaged prediction",
            "error": "its scores are not finite",
        }
    baseline = baselines(sample, job.protocol)
    frames = angle_by_frame(prediction.map, sample, job.protocol)
    fit = fit_diagnostics(prediction.map, sample, job.protocol)
    labels = label_range(sample, job.protocol)
    return {
        **row,
        "status": "done",
        "values": _values(job, sums),
        "sums": pack_all(sums),
        **({"frames": frames} if frames else {}),
        **({"fit": fit} if fit else {}),
        **({"labels": labels} if labels else {}),
        **({"baselines": {name: pack_all(s) for name, s in baseline.items()}} if baseline else {}),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _detections(job: Evaluation, sample: Sample, row: dict[str, Any]) -> dict[str, Any]:
    """The ``detections`` in the image of a row, and the keypoint similarity of the person of the row."""
    descriptor = job.folder.descriptor(row, job.protocol.target)
    if isinstance(job.source, CocoResults):
        return {"detections": job.source.people(row["id"]), "values": {}}
    people = detections(job.source(sample, row).map, descriptor)
    return {"detections": people, "values": {OKS.name: keypoint_similarity(people[0], descriptor)}}


def _values(job: Evaluation, sums: Sums) -> dict[str, float | None]:
    """The scores of this image by metric; None for a score that is not finite."""
    values = {m.name: m.compute(sums[m.name]) for m in get_metrics(job.protocol, job.classes)}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def data_identity(folder: Folder) -> dict[str, Any]:
    """The name of a data folder, and a sha256 of its header and rows that does not depend on its location.

    Images and maps are not read: a change of a file under the same name is not detected.
    """
    header = {key: value for key, value in folder.header.items() if key not in _LOCATION_KEYS}
    sha = hashlib.sha256(json.dumps([header, folder.rows], sort_keys=True).encode())
    return {"name": folder.header.get("name") or folder.root.name, "sha256": sha.hexdigest()}


def origins(folder: Folder, ids: Collection[str]) -> dict[str, int]:
    """How many of the samples are ``real``, ``rendered`` and ``synthetic`` according to the manifest."""
    counts: dict[str, int] = {}
    for row in folder.rows:
        if row["id"] in ids:
            origin = (row.get("provenance") or {}).get("origin")
            kind = origin or ("real" if row.get("real", True) else "rendered")
            counts[kind] = counts.get(kind, 0) + 1
    return counts
