"""The command `twofold train`, which trains a model by a recipe."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from twofold.cli.command import OptionGroup
from twofold.cli.console import OK, CommandError, output_mode, print_json, print_line, with_progress
from twofold.cli.interrupt import report_saved
from twofold.cli.model import DeviceOptions
from twofold.cli.usage import refuse_unused
from twofold.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twofold.train.recipe import Recipe


@dataclass(frozen=True)
class RunOptions(OptionGroup):
    """Options of commands that train."""

    title: ClassVar[str] = "Training run"
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; by default in runs/.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None
    log_every: Annotated[int, typer.Option(min=1, metavar="N", help="Print every N-th step.")] = 50


def check_log_every() -> None:
    """CommandError if ``--log-every`` was passed and has no effect."""
    if output_mode().json:
        refuse_unused("with --json, which prints every step", "log_every")
    if output_mode().quiet:
        refuse_unused("with --quiet, which prints no step", "log_every")


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="FILE.json, FILE.py, FILE.py:FUNCTION, or a name in ./recipes or of a recipe in twofold, such "
            "as genpercept:depth."
        ),
    ],
    run: RunOptions,
    device: DeviceOptions,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Skip samples that cannot be read and list them in skipped.jsonl."),
    ] = False,
    smoke_test: Annotated[
        bool,
        typer.Option(
            "--smoke-test",
            help="A smaller run of the recipe: the embedded model, rendered scenes, minutes on a CPU.",
        ),
    ] = False,
    tracker: Annotated[
        str,
        typer.Option(help="auto (tensorboard if installed), none, or any of accelerate's: wandb, ..."),
    ] = "auto",
) -> int:
    """Train a model by a recipe, and save it to DIR/checkpoint.

    Ctrl-C and SIGTERM save the state after the current step. When the command is run again, it continues from the last
    saved state, and the final weights are the same. On several GPUs: torchrun --nproc-per-node 4 -m twofold train
    RECIPE (or accelerate launch); the batch is divided among them.
    """
    check_log_every()
    settings = [*(run.settings or []), *(["data.skip_bad=true"] if skip_bad else [])]
    parsed = find_recipe(recipe, settings, smoke_test)
    if parsed.model.kind == "autoencoder":
        refuse_unused("on the stage autoencoder, which reads images into memory first", "skip_bad")
    folder = run.out or Path("runs") / parsed.name
    from twofold.environment import require_sound_torchvision

    if smoke_test:
        from twofold.train.smoke import check_data

        check_data(parsed)
        full, _ = _read_recipe(recipe)
        if full.data.has_teacher_labels:
            from twofold.cli.train_stages import train_stages

            refuse_unused("with --smoke-test of a second stage, which has several runs", "tracker")
            require_sound_torchvision()
            return train_stages(full, parsed, folder, device.device, run.log_every)
    require_sound_torchvision()
    _train(parsed, folder, device.device, tracker, run.log_every)
    return OK


def _train(recipe: Recipe, folder: Path, device: str, tracker: str, log_every: int) -> None:
    from twofold.train.distributed import DistributedContext
    from twofold.train.run import run_recipe
    from twofold.train.track import tracker_name

    distributed = DistributedContext(device, tracker_name(tracker), str(folder))
    records, first = run_recipe(recipe, folder, distributed), None
    with report_saved(folder), closing(records):
        for record in (
            with_progress(records, recipe.loop.steps, recipe.name) if distributed.first else records
        ):
            if not distributed.first:
                continue
            if first is None:
                first = record["step"]
                if first > 1:
                    print_line(f"continuing from step {first - 1}")
            print_json(record)
            if (
                "validation" in record
                or record["step"] % log_every == 0
                or record["step"] == recipe.loop.steps
            ):
                print_line(record_text(record, recipe.loop.steps))
    if distributed.first:
        _report_skipped(folder / "skipped.jsonl")
        print_line(done_text(folder / "checkpoint", recipe))


def done_text(checkpoint: Path, recipe: Recipe) -> str:
    """The last line of a run: the path of the checkpoint, and a command that uses it."""
    code = f" --network {recipe.model.factory}" if recipe.model.kind == "network" else ""
    return f"done: {checkpoint} (try: twofold predict photo.jpg --model {checkpoint}{code})"


def _report_skipped(listing: Path) -> None:
    """Print how many samples were skipped, and the file that lists them."""
    if listing.exists():
        count = len(listing.read_text().splitlines())
        print_line(f"skipped {count} unusable sample{'s' if count != 1 else ''}: {listing}")


def find_recipe(name: str, settings: Sequence[str] = (), smoke_test: bool = False) -> Recipe:
    """Read the recipe that a user names.

    Names of code in a JSON file are refused unless a setting repeats them: only the user, or a recipe in Python, may
    name code that is run.

    Args:
        name: file, file and function, or name of a recipe, see `train`.
        settings: changes ``KEY=VALUE`` that are applied to it.
        smoke_test: whether to make the recipe smaller first.

    Raises:
        CommandError: there is no such recipe, or the file has no function that returns one.
        ValueError: a setting is invalid, or a JSON file names code.
    """
    from twofold.train.code import check_code

    recipe, path = _read_recipe(name)
    allowed = _code_in(settings)
    if smoke_test:
        if path.suffix != ".py":
            check_code(recipe, path, allowed)  # before the tasks are imported
        recipe = _smaller(recipe)
    recipe = recipe.override(list(settings))
    if path.suffix != ".py":
        check_code(recipe, path, allowed)
    return recipe


def _code_in(settings: Sequence[str]) -> set[str]:
    """Names of code (of a network, head, backbone or task) in settings of the command line."""
    from twofold.train.override import read_value

    values = {key: read_value(value) for key, _, value in (s.partition("=") for s in settings)}
    weights = values.get("data.task_weights")
    names = {str(values.get(key, "")) for key in ("model.factory", "model.head.name", "model.init_from")}
    return {*names, *(weights if isinstance(weights, dict) else ())}


def _read_recipe(name: str) -> tuple[Recipe, Path]:
    """The recipe in a file without changes, and the file; see `find_recipe`."""
    from pydantic import ValidationError

    from twofold.train.recipe import Recipe, error_text
    from twofold.train.recipe_loader import find_file, known_names, recipes, run_file, takes_no_arguments

    text, _, function = name.partition(":")
    path = find_file(text)
    if path is None:
        known = known_names()
        hint = did_you_mean(Path(text).stem, known)
        raise CommandError(
            f"no recipe {name!r}{hint}: neither a file, nor a name in ./recipes or of a recipe included in twofold "
            f"({', '.join(known) or 'none'})"
        )
    if path.suffix != ".py":
        return Recipe.read(path, allow_code=True), path
    try:
        names = run_file(path)
        value = names.get(function or path.stem.replace("-", "_"), None if function else names.get("recipe"))
        value = value() if takes_no_arguments(value) else value
    except SyntaxError as error:
        raise CommandError(f"{path}, line {error.lineno}, is not Python: {error.msg}") from error
    except ValidationError as error:
        raise CommandError(f"{path}: {error_text(error)}") from error
    if not isinstance(value, Recipe):
        known = list(recipes(path))
        hint = did_you_mean(function, known) if function else ""
        raise CommandError(
            f"{path} has no function {function or path.stem}{hint} without arguments that returns a Recipe; pass one, "
            f"{path}:FUNCTION, of: {', '.join(known) or 'none'}"
        )
    return value, path


def _smaller(recipe: Recipe) -> Recipe:
    """A smaller version of a recipe, for a smoke test."""
    from twofold.train.smoke import smoke_config
    from twofold.train.smoke_stages import second_stage_smoke_config

    return second_stage_smoke_config(recipe) if recipe.data.has_teacher_labels else smoke_config(recipe)


def record_text(record: dict[str, Any], steps: int) -> str:
    """A record of training as one line."""
    scores = {k: v for k, v in record.items() if isinstance(v, float) and k not in ("seconds", "norm", "lr")}
    scores |= {f"val {k}": v for k, v in record.get("validation", {}).items()}
    values = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    return f"step {record['step']}/{steps}  {values}  {record['seconds']:.2f} s"
