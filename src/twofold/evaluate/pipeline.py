"""Builds an evaluation from a request, runs it and writes its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..image import ImageError
from ..io import escape
from ..predict.base import BasePredictor
from .diff2in1_files import Diff2in1Predictions
from .examples import ReportExample, render_example
from .measure import measure
from .pose import CocoResults, is_pose
from .predictions import FilePredictions, ModelPredictions, PredictionSource, check_model
from .protocol import EvaluationError
from .report import RunMetadata, assemble
from .report_file import Report, write_report
from .request import EvalRequest, check_provenance, num_classes
from .rows import read_all
from .run import Evaluation, data_identity, origins, run

# Entry of a model's metadata with its path or name, which is not part of the evaluation's identity.
_MODEL_KEY = "model"


def evaluation_from_model(
    request: EvalRequest,
    predictor: BasePredictor,
    size: int | None = None,
    seed: int | None = None,
    dtype: str = "float32",
    name: str = "",
) -> tuple[Evaluation, RunMetadata]:
    """Build the evaluation of a model.

    Args:
        request: data and protocol.
        predictor: predictor of the model, with its ensemble size.
        size: longest edge of the input, which replaces the protocol's; 0 for the size of each image.
        seed: random seed, which replaces the protocol's.
        dtype: dtype of the weights, for the report.
        name: name of the model, for the report.

    Returns:
        The evaluation, and the metadata of its report.

    Raises:
        EvaluationError: the protocol does not score the model's predictions, or `request.check_provenance` rejects the
            data.
    """
    protocol = request.protocol
    check_model(predictor, protocol)
    longest = protocol.size if size is None else size
    used = {
        "size": predictor.size if longest is None else longest,
        "seed": protocol.seed if seed is None else seed,
    }
    identity = {
        "kind": "model",
        **{k: v for k, v in predictor.metadata.items() if k != _MODEL_KEY},
        "task": predictor.task.name,
        "dtype": dtype,
        "ensemble": predictor.ensemble,
        **used,
    }
    deviations = [
        f"{setting} {used[setting]} in place of {value}"
        for setting, value in (("size", protocol.size), ("seed", protocol.seed))
        if value is not None and used[setting] != value
    ]
    source = ModelPredictions(predictor, used["size"], used["seed"], predictor.ensemble)
    subject = {**identity, "model": name or str(predictor.metadata.get(_MODEL_KEY, "model"))}
    return _build(request, source, identity, subject, deviations)


def evaluation_from_files(
    request: EvalRequest,
    root: Path,
    scale: float | None = None,
    frame: str = "RUB",
    stretch: bool = False,
    layout: str = "",
) -> tuple[Evaluation, RunMetadata]:
    """Build the evaluation of stored predictions; for keypoints, of a COCO results file.

    Args:
        request: data and protocol.
        root: folder of the predictions; for keypoints, the results file.
        scale: factor that stored values are multiplied by, see `predictions.FilePredictions`.
        frame: camera frame of stored vectors.
        stretch: whether to resize maps of another aspect ratio to that of their image.
        layout: ``diff2in1`` for a folder of Diff-2-in-1's test.py, which sets the three above (`Diff2in1Predictions`).

    Returns:
        The evaluation, and the metadata of its report.

    Raises:
        EvaluationError: see `predictions.FilePredictions` and `evaluation_from_model`.
    """
    protocol, folder = request.protocol, {"folder": escape(root)}
    if is_pose(protocol):
        settings: dict[str, Any] = {"kind": "predictions", "scale": scale, "frame": frame}
        results = CocoResults(root, request.folder)
        return _build(request, results, {**settings, "results": results.digest}, {**settings, **folder}, [])
    if layout:
        source: FilePredictions = Diff2in1Predictions(root, protocol, request.folder)
    else:
        source = FilePredictions(root, protocol, scale, frame, stretch)
    settings = {"kind": "predictions", "scale": source.scale, "frame": source.frame}
    settings |= {"stretch": True} if source.stretch else {}
    settings |= {"layout": layout} if layout else {}
    return _build(request, source, settings, {**settings, **folder}, [])


def _build(
    request: EvalRequest,
    source: PredictionSource,
    source_identity: Mapping[str, Any],
    subject: Mapping[str, Any],
    deviations: Sequence[str],
) -> tuple[Evaluation, RunMetadata]:
    """Check a request and build its evaluation.

    Args:
        request: data and protocol.
        source: the predictions.
        source_identity: everything about the source that determines the scores.
        subject: the description of the source for the report.
        deviations: deviations from the protocol's settings.
    """
    check_provenance(request)
    if is_pose(request.protocol) and find_spec("pycocotools") is None:
        raise ImportError("average precision needs pycocotools; pip install 'twofold[pose]'")
    folder, protocol = copy(request.folder), request.protocol
    folder.targets = (protocol.target,)  # the others are not read
    ids = request.ids
    if not ids:
        raise EvaluationError(f"{escape(folder.root)} has no images; there is nothing to evaluate")
    identity = {
        "protocol": protocol.id,
        "fingerprint": protocol.fingerprint,
        "data": data_identity(folder),
        "subject": dict(source_identity),
    }
    notes = [
        f"{n} of the images are {kind}, not photographs"
        for kind, n in sorted(origins(folder, set(ids)).items())
        if kind != "real" and (request.benchmark is None or kind != request.benchmark.origin)
    ]
    job = Evaluation(
        folder, source, protocol, request.out, identity, num_classes(folder, protocol), request.shard
    )
    group = request.group or (request.benchmark.group if request.benchmark else "")
    if request.group and not any(request.group in row for row in folder.rows):
        raise EvaluationError(
            f"no row of {escape(folder.root)} has the key {request.group!r}; pass one of its keys as --group"
        )
    if not any(group in row for row in folder.rows):
        group = ""  # not every layout of a benchmark has it
    return job, RunMetadata(subject, request.benchmark, ids, deviations, notes=notes, group=group)


def make_report(
    job: Evaluation, metadata: RunMetadata, images: bool = True
) -> tuple[Report, dict[str, Path]]:
    """Write the report of an evaluation from the rows that all processes have written so far.

    Args:
        job: the evaluation, see `run.run`.
        metadata: the part of the report that does not depend on the rows.
        images: whether the HTML report shows the best, the median and the worst image.

    Returns:
        The report, and the paths of its files by suffix.
    """
    report = assemble(job, metadata, read_all(job.out, job.identity))
    if isinstance(job.source, FilePredictions):
        selected = set(metadata.selected)
        rows = (job.with_image_path(row) for row in job.folder.rows if row["id"] in selected)
        unpaired = job.source.unpaired(rows)
        if unpaired:
            report["warnings"].append(
                f"{len(unpaired)} of the prediction files belong to no requested image, such as {unpaired[0]}"
            )
    return report, write_report(job.out, report, examples(job, report) if images else [])


def run_and_report(job: Evaluation, metadata: RunMetadata, images: bool = True) -> Report:
    """Run or resume an evaluation and return its report: `run.run` and `make_report`."""
    for _ in run(job, range(len(metadata.selected))):
        pass
    return make_report(job, metadata, images)[0]


def examples(job: Evaluation, report: Report) -> list[ReportExample]:
    """Render the images of a report's examples; their predictions are computed or read again."""
    chosen = report["examples"]
    positions = {id: index for index, id in enumerate(job.folder.ids)}
    rendered: list[ReportExample] = []
    for rank in ("best", "median", "worst"):
        if rank not in chosen or any(example.id == chosen[rank]["id"] for example in rendered):
            continue
        try:
            sample, row = job.sample(positions[chosen[rank]["id"]])
            aligned = job.source(sample, row).map
            if not is_pose(job.protocol):
                _, aligned = measure(aligned, sample, job.protocol, job.classes)
        except (EvaluationError, ImageError, OSError):
            continue  # the file changed after its row was written
        rendered.append(
            render_example(rank, chosen[rank]["value"], sample, aligned, job.protocol, job.classes)
        )
    return rendered
