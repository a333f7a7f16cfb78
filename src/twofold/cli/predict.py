"""`twofold predict`: pictures in, maps out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from twofold.cli.console import (
    NOTHING_STARTED,
    OK,
    SOME_FAILED,
    CommandError,
    check_choice,
    parse_device,
    parse_dtype,
    print_error,
    print_json,
    print_line,
    with_progress,
)
from twofold.cli.limits import MaxPixels
from twofold.cli.usage import refuse_unused, warn_unused

if TYPE_CHECKING:
    from twofold.checkpoints import Model, Network
    from twofold.predict.base import BasePredictor
    from twofold.predict.diffusion import DiffusionPredictor
    from twofold.predict.inputs import Problem
    from twofold.predict.module import ModulePredictor


# Of files that are left out, for people.
_MOST_LISTED = 20


class Source(NamedTuple):
    """Where a model comes from: see `checkpoints.open_model`."""

    model: str
    method: str = ""
    base: str = ""
    revision: str | None = None
    variant: str = ""
    network: str = ""


# Options that commands share which open a model.
Method = Annotated[
    str, typer.Option(metavar="NAME", help="Which published model a folder holds, if its name is another.")
]
OddSizes = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="For sides that are no multiple of the stride: pad, or floor as the original programs do.",
    ),
]
NetworkCode = Annotated[
    str,
    typer.Option(
        metavar="CODE", help="Of a network of your own, the code that makes it: FILE.py:NAME, which is run."
    ),
]


def predict(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Pictures, folders, or patterns like 'shots/*.jpg'."),
    ],
    task: Annotated[
        str, typer.Option(metavar="TASKS", help="Comma-separated; all the model knows by default.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            metavar="M", help="'embedded', a name of 'twofold models', a hub id, a folder or a file."
        ),
    ] = "embedded",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results are written.")] = Path(
        "predictions"
    ),
    size: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Longest edge the model works at, in pixels, or 'native'; the model's own by default.",
        ),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do again what is there.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write the picture and its maps as one picture.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture on standard output, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of whatever is random.")] = 0,
    ensemble: Annotated[
        int, typer.Option(min=1, max=100, help="Answers to draw and merge; adds NAME_TASK_uncertainty.npy.")
    ] = 1,
    merge: Annotated[
        str,
        typer.Option(
            metavar="HOW", help="Of an ensemble: affine, scale, compat, closest, mean or median; by the task."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(min=0, help="Looks of a multi-step model; its own by default.")] = 0,
    odd_sizes: OddSizes = "pad",
    method: Method = "",
    base: Annotated[
        str, typer.Option(metavar="DIR", help="Model that completes a checkpoint: its autoencoder, its text.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Of a hub repository.")] = "",
    variant: Annotated[str, typer.Option(help="Of the weight files, such as fp16.")] = "",
    network: NetworkCode = "",
    frame: Annotated[str, typer.Option(help="Of normals: RUB, LUB or RDF.")] = "RUB",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    max_pixels: MaxPixels = "",
) -> int:
    """Predict depth and surface normals of pictures.

    For each picture: NAME_TASK.npy (float32 at the picture's size: depth in [0, 1], 0 near; normals as unit
    vectors, x right, y up, z to the viewer), NAME_TASK.png (lossless), NAME_TASK_color.png (for eyes), and a
    row in predictions.jsonl. What is there already is kept; a file that fails is reported and the rest done.
    """
    from twofold.predict.files import Job, OutputError, predict_files
    from twofold.predict.inputs import find_inputs

    longest = _longest(size)
    check_choice("--frame", frame, ("RUB", "LUB", "RDF"))
    dtype = parse_dtype(dtype)
    check_choice("--odd-sizes", odd_sizes, ("pad", "floor"))
    check_source(context, model, network)
    if ensemble == 1:
        refuse_unused(context, "without --ensemble", "merge")
    left_out: list[Problem] = []
    found, problems = find_inputs(inputs, out, left_out)
    counts: Counter[str] = Counter()
    for problem in problems:
        counts["failed"] += 1
        _report_problem(problem, as_json)
    if found:
        source = Source(model, method, base, revision or None, variant, network)
        predictors = open_predictors(
            source, task, parse_device(device), dtype, ensemble, steps, frame, merge, odd_sizes
        )
        _check_effects(context, predictors)
        about = {"seed": seed, "dtype": dtype, "device": parse_device(device)}
        settings = {
            name: {**p.about, **about, "size": p.size if longest is None else longest, **_more(p, frame)}
            for name, p in predictors.items()
        }
        job = Job(predictors, settings, out, longest, seed, overwrite, side_by_side)
        try:
            for row in with_progress(predict_files(job, found), len(found), "predict", quiet=as_json):
                counts[row["status"]] += 1
                _report(row, as_json)
        except OutputError as error:
            raise CommandError(str(error), SOME_FAILED if error.started else NOTHING_STARTED) from error
    _report_left_out(left_out, as_json)
    if not as_json:
        _summary(counts, out, side_by_side)
    return SOME_FAILED if counts["failed"] else OK


def check_source(context: typer.Context, model: str, network: str = "") -> None:
    """CommandError for options that say where a model comes from, where it comes from elsewhere."""
    names = [p.name for p in context.command.params]
    of_weights = [n for n in ("method", "base", "revision", "variant") if n in names]
    if network:
        refuse_unused(context, "with --network, whose weights are in one folder", *of_weights)
    if model == "embedded":
        refuse_unused(context, "for the embedded model, which is complete", *of_weights)
    elif Path(model).exists() and "revision" in of_weights:
        refuse_unused(
            context, f"for {model}, which is on this disk: a revision is of a hub repository", "revision"
        )


def _check_effects(context: typer.Context, predictors: Mapping[str, BasePredictor]) -> None:
    """CommandError for options that none of the opened predictors has a use for; a seed is only warned of."""
    if not any(p.task.frame for p in predictors.values()):
        refuse_unused(context, f"on {', '.join(predictors)}: only vectors have a frame", "frame")
    if not any(p.is_stochastic for p in predictors.values()):
        warn_unused(context, "on a deterministic model", "seed")


def open_source(source: Source, device: str, dtype: str) -> Model | Network:
    """The model, or the network of somebody's own where the code that makes it is said."""
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    import torch

    from twofold.checkpoints import open_model, open_network

    kind = getattr(torch, dtype)
    if source.network:
        return open_network(source.model, source.network, device, kind)
    model, method, base, revision, variant, _ = source
    return open_model(model, device, kind, method, base, revision, variant)


def open_predictors(
    source: Source,
    task: str,
    device: str,
    dtype: str,
    ensemble: int = 1,
    steps: int = 0,
    frame: str = "RUB",
    merge: str = "",
    odd_sizes: str = "pad",
) -> dict[str, DiffusionPredictor | ModulePredictor]:
    """The model, opened, and a predictor for each task that is asked."""
    opened = open_source(source, device, dtype)
    names = [name.strip() for name in task.split(",") if name.strip()] or list(opened.tasks) or [""]
    changes: dict[str, Any] = {"steps": steps} if steps else {}
    changes |= {"odd_sizes": odd_sizes} if odd_sizes != "pad" else {}
    out: dict[str, DiffusionPredictor | ModulePredictor] = {}
    for name in dict.fromkeys(names):
        out[name] = opened.predictor(name or None).asked(ensemble, merge, frame, **changes)
    return out


def _more(predictor: BasePredictor, frame: str) -> dict[str, Any]:
    """What else decides the numbers, said only where it is not the default."""
    more: dict[str, Any] = {}
    if predictor.ensemble > 1:
        more["ensemble"] = predictor.ensemble
    if "merge" in predictor.about:
        more["merge"] = predictor.about["merge"]
    if frame != "RUB" and predictor.task.frame is not None:
        more["saved_frame"] = frame
    return more


def _longest(size: str) -> int | None:
    from twofold.predict.base import parse_size

    if not size:
        return None
    try:
        edge = parse_size(size)
    except ValueError:
        edge = 0
    if not edge and size != "native":
        raise CommandError(f"--size {size!r} is not a number of pixels from 8 to 8192, or 'native'")
    return edge


def _report_problem(problem: Problem, as_json: bool) -> None:
    if as_json:
        print_json({"input": problem.path, "status": "failed", "error": problem.error})
    print_error(problem.error)


def _report(row: dict[str, Any], as_json: bool) -> None:
    """One picture's line: JSON for programs, words for people; a failure is on standard error in both."""
    if as_json:
        print_json(row)
    if row["status"] == "failed":
        print_error(row["error"])
    elif not as_json:
        height, width = row["size"]
        times = ", ".join(f"{name} {done['seconds']:.2f} s" for name, done in row["tasks"].items())
        print_line(f"{row['input']}  {width}x{height}  {times if row['status'] == 'done' else 'kept'}")


def _report_left_out(left_out: Sequence[Problem], as_json: bool) -> None:
    """What searched folders hold that is not read: counted and listed, for people not more than a screen of it."""
    if as_json:
        for one in left_out:  # standard output has a row for each image, and nothing else
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
    print_line(
        f"results: {out}/  (predictions.jsonl lists them{'; see *_side_by_side.png' if side_by_side else ''})"
    )
