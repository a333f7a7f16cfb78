"""One run from recipe to checkpoint folder."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..backbones.stable_diffusion import StableDiffusion
from ..checkpoints import ModelSettings, open_model, save_model
from ..data.folder import Folder
from .loop import Record, append_record, train
from .recipe import IMAGE, Recipe


def starting_point(recipe: Recipe) -> tuple[StableDiffusion, ModelSettings]:
    """The model a recipe starts from: a folder, or a fresh miniature whose words are its sources' captions."""
    from ..backbones import new

    if recipe.start == "new":
        rows = [row for source in recipe.sources for row in Folder(source.path).rows]
        captions = [str(row.get("text") or row.get("caption") or "") for row in rows]
        return new.miniature(captions, recipe.seed), ModelSettings(name=recipe.name)
    model = open_model(recipe.start)
    fresh = new.miniature([""], recipe.seed) if recipe.reset else None
    for part in recipe.reset:
        if part != "unet" or fresh is None:
            raise ValueError(f"cannot reset {part!r}; only 'unet'")
        model.backbone.unet = fresh.unet
    return model.backbone, model.settings


def run_recipe(recipe: Recipe, run: Path) -> Generator[Record, None, None]:
    """Train and save to ``run/checkpoint``; yields the loop's records, each also in ``run/metrics.jsonl``.

    A finished run yields nothing.
    """
    saved = run / "recipe.json"
    if (run / "checkpoint").exists() and saved.exists() and Recipe.read(saved) == recipe:
        return
    backbone, settings = starting_point(recipe)
    for record in train(backbone, recipe, run):
        if "validation" in record or record["step"] % 10 == 0:
            append_record(run / "metrics.jsonl", record)
        yield record
    tasks = [t for t in recipe.mix if t != IMAGE] if recipe.stage == "denoiser" else []
    save_model(backbone, settings.with_tasks(tasks, recipe.timestep, recipe.name), run / "checkpoint")
