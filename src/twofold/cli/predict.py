"""`twofold predict`: images to maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import (
    NOTHING_STARTED,
    OK,
    SOME_FAILED,
    CommandError,
    output_mode,
    print_error,
    print_json,
    print_line,
    with_progress,
)
from twofold.cli.model import check_model_options, open_from_options
from twofold.cli.options import InferenceOptions, ModelOptions, RuntimeOptions, choice
from twofold.cli.usage import refuse_unused, warn_unused

if TYPE_CHECKING:
    from twofold.predict.base import BasePredictor
    from twofold.predict.diffusion import DiffusionPredictor
    from twofold.predict.inputs import Problem
    from twofold.predict.module import ModulePredictor


# Of the files that are not read, printed without --json.
_MOST_LISTED = 20


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, folders, or patterns like 'shots/*.jpg'."),
    ],
    model: ModelOptions,
    inference: InferenceOptions,
    runtime: RuntimeOptions,
    task: Annotated[
        str, typer.Option(metavar="TASKS", help="Comma-separated; by default all tasks of the model.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path("predictions"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict again what has results already.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write the image beside its maps, in one PNG.")
    ] = False,
    merge: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How to merge an ensemble: affine, scale, compat, closest, mean or median; by default by the task.",
        ),
    ] = "",
    frame: Annotated[str, choice("--frame", ("RUB", "LUB", "RDF"), "Axes of saved normals.")] = "RUB",
    seed: Annotated[int, typer.Option(help="Seed of noise and ensembles.")] = 0,
) -> int:
    """Predict depth, surface normals and other maps of images.

    For each image: NAME_TASK.npy (float32 at the image's size: depth in [0, 1], 0 near; normals as unit vectors,
    x right, y up, z to the viewer), NAME_TASK.png (lossless), NAME_TASK_color.png (preview image), with --ensemble
    NAME_TASK_uncertainty.npy, and a row in predictions.jsonl. Existing results are kept; an image that fails is
    reported, and the rest is done.
    """
    from twofold.predict.files import Job, LazyPredictors, OutputError, predict_files
    from twofold.predict.inputs import find_inputs
    from twofold.predict.ledger import FILE as RESULTS

    longest = inference.longest_edge()
    check_model_options(model.model, model.network)
    if inference.ensemble == 1:
        refuse_unused("without --ensemble", "merge")
    left_out: list[Problem] = []
    found, problems = find_inputs(inputs, out, left_out)
    counts: Counter[str] = Counter()
    for problem in problems:
        counts["failed"] += 1
        print_json({"input": problem.path, "status": "failed", "error": problem.error})
        print_error(problem.error)
    if found:
        device = runtime.resolve()
        opened = partial(open_predictors, model, task, device, runtime.dtype, inference, frame, merge)
        predictors: Mapping[str, BasePredictor]
        if model.network or overwrite or not (out / RESULTS).is_file():
            described = predictors = opened()
        else:  # Existing results may be all: their settings need no weights.
            described = open_predictors(model, task, "meta", runtime.dtype, inference, frame, merge)
            predictors = LazyPredictors(list(described), opened)
        _check_effects(described)
        about = {"seed": seed, "dtype": runtime.dtype, "device": device}
        settings = {
            name: {**p.metadata, **about, "size": p.size if longest is None else longest, **_more(p, frame)}
            for name, p in described.items()
        }
        job = Job(predictors, settings, out, longest, seed, overwrite, side_by_side)
        try:
            for row in with_progress(predict_files(job, found), len(found), "predict"):
                counts[row["status"]] += 1
                _report(row)
        except OutputError as error:
            raise CommandError(str(error), SOME_FAILED if error.started else NOTHING_STARTED) from error
    _report_left_out(left_out)
    _summary(counts, out, side_by_side)
    return SOME_FAILED if counts["failed"] else OK


def _check_effects(predictors: Mapping[str, BasePredictor]) -> None:
    """CommandError for options that affect none of the predictors; a seed is only warned of."""
    if not any(p.task.frame for p in predictors.values()):
        refuse_unused(f"on {', '.join(predictors)}: only vectors have a frame", "frame")
    if not any(p.is_stochastic for p in predictors.values()):
        warn_unused("on a deterministic model", "seed")


def open_predictors(
    options: ModelOptions,
    task: str,
    device: str,
    dtype: str,
    inference: InferenceOptions,
    frame: str,
    merge: str,
) -> dict[str, DiffusionPredictor | ModulePredictor]:
    """The model, opened, and a predictor for each task of ``task``, or for all."""
    opened = open_from_options(options, device, dtype)
    names = [name.strip() for name in task.split(",") if name.strip()] or list(opened.tasks) or [""]
    return {
        name: opened.predictor(name or None).with_options(
            inference.ensemble, merge, frame, **inference.changes()
        )
        for name in dict.fromkeys(names)
    }


def _more(predictor: BasePredictor, frame: str) -> dict[str, Any]:
    """What else decides the values, recorded only where it is not the default."""
    more: dict[str, Any] = {}
    if predictor.ensemble > 1:
        more["ensemble"] = predictor.ensemble
    if "merge" in predictor.metadata:
        more["merge"] = predictor.metadata["merge"]
    if frame != "RUB" and predictor.task.frame is not None:
        more["saved_frame"] = frame
    return more


def _report(row: dict[str, Any]) -> None:
    """One image's line or row; a failure is on standard error in any case."""
    print_json(row)
    if row["status"] == "failed":
        print_error(row["error"])
    else:
        height, width = row["size"]
        times = ", ".join(f"{name} {done['seconds']:.2f} s" for name, done in row["tasks"].items())
        print_line(f"{row['input']}  {width}x{height}  {times if row['status'] == 'done' else 'kept'}")


def _report_left_out(left_out: Sequence[Problem]) -> None:
    """Files of searched folders that are not read: all on standard error with --json, else some of them as lines."""
    if output_mode().json:  # standard output has a row for each image, and nothing else
        for one in left_out:
            print_error(f"left out: {one.error}")
        return
    for one in left_out[:_MOST_LISTED]:
        print_line(f"left out  {one.error}")
    if len(left_out) > _MOST_LISTED:
        print_line(f"left out  ... and {len(left_out) - _MOST_LISTED} more (--json lists all)")
    if left_out:
        print_line(f"{len(left_out)} left out: not images that can be read")


def _summary(counts: Counter[str], out: Path, side_by_side: bool) -> None:
    if not counts["done"] and not counts["kept"]:
        return
    words = {"done": "predicted", "kept": "kept", "failed": "failed"}
    print_line(", ".join(f"{counts[status]} {word}" for status, word in words.items() if counts[status]))
    sheets = "; see *_side_by_side.png" if side_by_side else ""
    print_line(f"results: {out}/  (predictions.jsonl lists them{sheets})")
