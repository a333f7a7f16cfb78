"""An evaluation from request to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    pass

# Entries of a model's metadata that decide no number: its place.
_IGNORED = ("model",)


def evaluation_from_model(
    request: EvalRequest,
    predictor: BasePredictor,
    size: int | None = None,
    seed: int | None = None,
    dtype: str = "float32",
    name: str = "",
) -> tuple[Evaluation, RunMetadata]:
    """An evaluation of a model.

    Args:
        request: data and protocol.
        predictor: the model's, with its ensemble size.
        size: longest edge of its input, in place of the protocol's; 0 for the image's own.
        seed: in place of the protocol's.
        dtype: of its weights, for the record.
        name: of the model, for the record.

    Raises:
        EvaluationError: the protocol does not score what the model predicts, or the images are no photographs.
    """
    protocol = request.protocol
    check_model(predictor, protocol)
    longest = protocol.size if size is None else size
    used = {
        "size": predictor.size if longest is None else longest,
        "seed": protocol.seed if seed is None else seed,
    }
    about = {k: v for k, v in predictor.metadata.items() if k not in _IGNORED}
    of = {
        "kind": "model",
        **about,
        "task": predictor.task.name,
        "dtype": dtype,
        "ensemble": predictor.ensemble,
    }
    of |= used
    deviations = [
        f"{what} {used[what]} in place of {value}"
        for what, value in (("size", protocol.size), ("seed", protocol.seed))
        if value is not None and used[what] != value
    ]
    source = ModelPredictions(predictor, used["size"], used["seed"], predictor.ensemble)
    called = {"model": name or str(predictor.metadata.get("model", "model"))}
    return _build(request, source, of, {**of, **called}, deviations)


def evaluation_from_files(
    request: EvalRequest,
    root: Path,
    scale: float | None = None,
    frame: str = "RUB",
    stretch: bool = False,
    layout: str = "",
) -> tuple[Evaluation, RunMetadata]:
    """An evaluation of stored predictions; for keypoints, of a COCO results file.

    Args:
        request: data and protocol.
        root: folder of the predictions.
        scale: what stored numbers are multiplied by, see `predictions.FilePredictions`.
        frame: of stored vectors.
        stretch: whether maps of another shape are stretched to that of their image.
        layout: ``diff2in1`` for a folder of Diff-2-in-1's test.py, which sets the three above (`Diff2in1Predictions`).

    Raises:
        EvaluationError: see `predictions.FilePredictions` and `evaluation_from_model`.
    """
    protocol = request.protocol
    if is_pose(protocol):
        of: dict[str, Any] = {"kind": "predictions", "scale": scale, "frame": frame}
        results = CocoResults(root, request.folder)
        return _build(request, results, {**of, "results": results.digest}, {**of, "folder": escape(root)}, [])
    if layout:
        source: FilePredictions = Diff2in1Predictions(root, protocol, request.folder)
    else:
        source = FilePredictions(root, protocol, scale, frame, stretch)
    of = {"kind": "predictions", "scale": source.scale, "frame": source.frame}
    of |= {"stretch": True} if source.stretch else {}
    of |= {"layout": layout} if layout else {}
    return _build(request, source, of, {**of, "folder": escape(root)}, [])


def _build(
    request: EvalRequest,
    source: PredictionSource,
    of: Mapping[str, Any],
    subject: Mapping[str, Any],
    deviations: Sequence[str],
) -> tuple[Evaluation, RunMetadata]:
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
        "subject": dict(of),
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
    """Write the report of an evaluation that has run, from the rows of every process so far.

    Args:
        job: what was evaluated, see `run.run`.
        metadata: what the report has beside the numbers.
        images: whether the best, the median and the worst image are in the HTML report.

    Returns:
        The report, and the files it was written to.
    """
    report = assemble(job, metadata, read_all(job.out, job.identity))
    if isinstance(job.source, FilePredictions):
        selected = set(metadata.selected)
        left = job.source.unpaired(
            row for row in map(job.described, job.folder.rows) if row["id"] in selected
        )
        if left:
            report["warnings"].append(
                f"of the files among the predictions, {len(left)} belong to no requested image, such as "
                f"{left[0]}"
            )
    return report, write_report(job.out, report, examples(job, report) if images else [])


def run_and_report(job: Evaluation, metadata: RunMetadata, images: bool = True) -> Report:
    """Run or resume an evaluation and return its report: `run.run` and `make_report`."""
    for _ in run(job, range(len(metadata.selected))):
        pass
    return make_report(job, metadata, images)[0]


def examples(job: Evaluation, report: Report) -> list[ReportExample]:
    """The images of a report's examples; each is predicted, or read, once more."""
    chosen = report["examples"]
    positions = {id: index for index, id in enumerate(job.folder.ids)}
    found: list[ReportExample] = []
    for which in ("best", "median", "worst"):
        if which not in chosen or any(one.id == chosen[which]["id"] for one in found):
            continue
        try:
            sample, row = job.sample(positions[chosen[which]["id"]])
            prediction = job.source(sample, row)
            compared = prediction.map
            if not is_pose(job.protocol):
                _, compared = measure(prediction.map, sample, job.protocol, job.classes)
        except (EvaluationError, ImageError, OSError):
            continue  # it changed since; its row has its score
        found.append(
            render_example(which, chosen[which]["value"], sample, compared, job.protocol, job.classes)
        )
    return found
