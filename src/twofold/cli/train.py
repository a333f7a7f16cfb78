"""`twofold train`: a recipe to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.console import OK, Stop, emit, line

if TYPE_CHECKING:
    from twofold.train.recipe import Recipe


def train(
    recipe: Annotated[
        str, typer.Argument(help="FILE.json, FILE.py, FILE.py:FUNCTION, or a name in ./recipes.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/NAME by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Print every so many steps.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print every record as JSON.")] = False,
) -> int:
    """Train a model as a recipe says, and save it to DIR/checkpoint.

    Run again after a kill, the command goes on where the last saved state was, and ends in the same weights.
    """
    asked = _changed(find_recipe(recipe), settings or [])
    run = out or Path("runs") / asked.name
    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    from twofold.train.run import run_recipe

    for record in run_recipe(asked, run):
        if as_json:
            emit(record)
        elif "validation" in record or record["step"] % every == 0 or record["step"] == asked.steps:
            line(_words(record, asked.steps))
    if not as_json:
        line(f"done: {run / 'checkpoint'} (try: twofold predict photo.jpg --model {run / 'checkpoint'})")
    return OK


def find_recipe(name: str) -> Recipe:
    """The recipe a person named. Stop when there is none, or the file holds none."""
    from twofold.train.recipe import Recipe

    text, _, function = name.partition(":")
    candidates = [Path(text), Path("recipes", f"{text}.py"), Path("recipes", f"{text}.json")]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        known = ", ".join(sorted(p.stem for p in Path("recipes").glob("[!_]*.*"))) or "none here"
        raise Stop(f"no recipe {name!r}: neither a file nor a name in ./recipes ({known})")
    if path.suffix != ".py":
        return Recipe.read(path)
    # A recipe is a program of the user's own, named by the user: running it is what is asked.
    import runpy

    try:
        found = runpy.run_path(str(path))
    except SyntaxError as error:
        raise Stop(f"{path}, line {error.lineno}, is not Python: {error.msg}") from error
    made = found.get(function or path.stem.replace("-", "_"), found.get("recipe"))
    value = made() if callable(made) else made
    if not isinstance(value, Recipe):
        wanted = function or path.stem
        raise Stop(f"{path} has no function {wanted} that returns a Recipe; name one: {path}:FUNCTION")
    return value


def _changed(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with the values of --set. Stop for a value that does not fit."""
    from pydantic import ValidationError

    try:
        return recipe.override(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Stop(f"--set {where}: {first['msg']}, not {first['input']!r}") from error


def _words(record: dict[str, Any], steps: int) -> str:
    scores = {k: v for k, v in record.items() if isinstance(v, float) and k not in ("seconds", "norm")}
    scores |= {f"val {k}": v for k, v in record.get("validation", {}).items()}
    told = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    return f"step {record['step']}/{steps}  {told}  {record['seconds']:.2f} s"
