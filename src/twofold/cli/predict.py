"""The command `twofold predict`, which predicts maps of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import (
    OK,
    SOME_FAILED,
    counted,
    output_mode,
    print_error,
    print_json,
    print_line,
    print_rows,
)
from twofold.cli.model import (
    CheckpointOptions,
    InferenceOptions,
    ModelOptions,
    RuntimeOptions,
    check_model_options,
    open_from_options,
)
from twofold.cli.options import choice
from twofold.cli.usage import refuse_unused, warn_unused

if TYPE_CHECKING:
    from twofold.predict.base import BasePredictor
    from twofold.predict.inputs import Problem


# Maximum number of skipped files that are listed without --json.
_MAX_LISTED = 20


@dataclass(frozen=True)
class ResultOptions(OptionGroup):
    """Options of the output folder."""

    title: ClassVar[str] = "Output"
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")] = Path("predictions")
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")] = False
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write the image beside its maps, in one PNG.")
    ] = False
    frame: Annotated[
        str,
        choice(
            "--frame",
            ("RUB", "LUB", "RDF"),
            "Axes of saved normals: x right or left, y up or down, z back (to the camera) or front.",
        ),
    ] = "RUB"


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, folders, or patterns like 'shots/*.jpg'."),
    ],
    model: ModelOptions,
    checkpoint: CheckpointOptions,
    inference: InferenceOptions,
    runtime: RuntimeOptions,
    results: ResultOptions,
    task: Annotated[
        str, typer.Option(metavar="TASKS", help="Comma-separated; by default all tasks of the model.")
    ] = "",
    merge: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How to merge an ensemble: affine, scale, compat, closest, mean or median; by default by the task.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of noise and ensembles.")] = 0,
) -> int:
    """Predict depth, surface normals and other maps of images.

    For each image: NAME_TASK.npy (float32 at the image's size: depth in [0, 1], 0 near; normals as unit vectors,
    x right, y up, z to the viewer), NAME_TASK.png (lossless), NAME_TASK_color.png (preview image), with --ensemble
    NAME_TASK_uncertainty.npy, and a row in predictions.jsonl. Existing results are kept. An image that fails is
    reported, and the other images are predicted.
    """
    from twofold.predict.files import Job, predict_files
    from twofold.predict.inputs import find_inputs

    longest = inference.longest_edge()
    check_model_options(model.model, model.network)
    if inference.ensemble == 1:
        refuse_unused("without --ensemble", "merge")
    skipped: list[Problem] = []
    images, problems = find_inputs(inputs, results.out, skipped)
    counts: Counter[str] = Counter(failed=len(problems))
    for problem in problems:
        print_json({"input": problem.path, "status": "failed", "error": problem.error})
        print_error(problem.error)
    if images:
        device = runtime.resolve()
        names = [name.strip() for name in task.split(",") if name.strip()]
        dtype, frame = runtime.dtype, results.frame
        open_on = partial(open_predictors, model, checkpoint, inference, names, dtype, merge, frame)
        predictors, config_predictors = _predictors(open_on, device, results, bool(model.network))
        _check_effects(config_predictors)
        common = {"seed": seed, "dtype": runtime.dtype, "device": device}
        settings = {name: _settings(p, longest, frame) | common for name, p in config_predictors.items()}
        job = Job(predictors, settings, results.out, longest, seed, results.overwrite, results.side_by_side)
        counts += print_rows(predict_files(job, images), len(images), "predict", _describe)
    _report_skipped(skipped)
    _summary(counts, results)
    return SOME_FAILED if counts["failed"] else OK


def open_predictors(
    model: ModelOptions,
    checkpoint: CheckpointOptions,
    inference: InferenceOptions,
    tasks: Sequence[str],
    dtype: str,
    merge: str,
    frame: str,
    device: str,
) -> dict[str, BasePredictor]:
    """Open a model and return its predictors of ``tasks``, or of all its tasks, with the options applied."""
    opened = open_from_options(model, checkpoint, device, dtype)
    names = tasks or list(opened.tasks) or [""]
    return {
        name: inference.apply(opened.predictor(name or None), merge, frame) for name in dict.fromkeys(names)
    }


def _predictors(
    open_on: Callable[[str], Mapping[str, BasePredictor]],
    device: str,
    results: ResultOptions,
    user_defined: bool,
) -> tuple[Mapping[str, BasePredictor], Mapping[str, BasePredictor]]:
    """The predictors, and predictors to read settings from.

    If all results may exist, the latter are on the meta device, and the weights are read only when they are needed.

    Args:
        open_on: function from a device to the predictors.
        device: the device to predict on.
        results: options of the results.
        user_defined: whether the model is a user-defined network, which cannot be opened on the meta device.
    """
    from twofold.predict.files import LazyPredictors
    from twofold.predict.result_log import FILE

    if user_defined or results.overwrite or not (results.out / FILE).is_file():
        opened = open_on(device)
        return opened, opened
    config_predictors = open_on("meta")
    return LazyPredictors(list(config_predictors), partial(open_on, device)), config_predictors


def _check_effects(predictors: Mapping[str, BasePredictor]) -> None:
    """CommandError for options that affect none of the predictors; a warning for such a seed."""
    if not any(p.task.frame for p in predictors.values()):
        refuse_unused(f"on {', '.join(predictors)}: only vectors have a frame", "frame")
    if not any(p.is_stochastic for p in predictors.values()):
        warn_unused("on a deterministic model", "seed")


def _settings(predictor: BasePredictor, longest: int | None, frame: str) -> dict[str, Any]:
    """The recorded settings that determine a prediction; ensemble and frame only if they are not the default."""
    settings = {**predictor.metadata, "size": predictor.size if longest is None else longest}
    if predictor.ensemble > 1:
        settings["ensemble"] = predictor.ensemble
    if frame != "RUB" and predictor.task.frame is not None:
        settings["saved_frame"] = frame
    return settings


def _describe(row: dict[str, Any]) -> str:
    """The line of an image: its path, its size, and the time of each task."""
    height, width = row["size"]
    times = ", ".join(f"{name} {result['seconds']:.2f} s" for name, result in row["tasks"].items())
    return f"{row['input']}  {width}x{height}  {times if row['status'] == 'done' else 'kept'}"


def _report_skipped(skipped: Sequence[Problem]) -> None:
    """Print the files of searched folders that are not images: with --json all, to standard error; else the first."""
    if output_mode().json:  # standard output has a row for each image, and nothing else
        for problem in skipped:
            print_error(f"skipped: {problem.error}")
        return
    for problem in skipped[:_MAX_LISTED]:
        print_line(f"skipped  {problem.error}")
    if len(skipped) > _MAX_LISTED:
        print_line(f"skipped  ... and {len(skipped) - _MAX_LISTED} more (--json lists all)")
    if skipped:
        print_line(f"{len(skipped)} skipped: not readable images")


def _summary(counts: Counter[str], results: ResultOptions) -> None:
    if counts["done"] or counts["kept"]:
        print_line(counted(counts, {"done": "predicted", "kept": "kept", "failed": "failed"}))
        sheets = "; see *_side_by_side.png" if results.side_by_side else ""
        print_line(f"results: {results.out}/  (predictions.jsonl lists them{sheets})")
