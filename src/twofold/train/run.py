"""One run from recipe to checkpoint folder."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from torch import nn

from ..backbones.stable_diffusion import StableDiffusion
from ..checkpoints import ModelSettings, open_model, save_model
from ..data.folder import Folder
from ..tasks import TASKS, get_task
from .loop import Record, train
from .recipe import IMAGE, Recipe
from .room import room
from .team import Team
from .track import Journal


def starting_point(recipe: Recipe) -> tuple[StableDiffusion, ModelSettings, dict[str, nn.Module]]:
    """The model a recipe starts from, or a fresh miniature; parts it resets are random again.

    The words of a fresh tokenizer are those of the sources' captions and of the tasks' prompts.
    """
    from ..backbones import new

    if recipe.start == "new":
        return new.miniature(_texts(recipe), recipe.seed), ModelSettings(name=recipe.name), {}
    model = open_model(recipe.start)
    if recipe.reset:
        new.renew(model.backbone, recipe.reset, _texts(recipe), recipe.seed)
    if recipe.stage == "denoiser" and recipe.tasks:
        _check_protocol(recipe, model.backbone)
        new.widen(
            model.backbone, recipe.protocol.channels(model.backbone.latent_channels), recipe.protocol.parts
        )
    return model.backbone, model.settings, {} if "heads" in recipe.reset else dict(model.heads)


def _check_protocol(recipe: Recipe, backbone: StableDiffusion) -> None:
    """Refuse what would be left out in silence.

    Raises:
        ValueError: class numbers for a network that cannot hear them.
    """
    if recipe.protocol.class_labels is not None and backbone.unet.config.get("class_embed_type") is None:
        raise ValueError(
            "the protocol tells class_labels, and this network has no class embedding to hear them; leave them out"
        )


def _texts(recipe: Recipe) -> list[str]:
    rows = [row for source in recipe.sources for row in Folder(source.path).rows]
    captions = [str(row.get("text") or row.get("caption") or "") for row in rows]
    asked = [get_task(t).prompt for t in (*TASKS, *recipe.tasks)] + list(recipe.prompts.values())
    return captions + asked * 10


def run_recipe(recipe: Recipe, run: Path, team: Team | None = None) -> Generator[Record, None, None]:
    """Train and save to ``run/checkpoint``; yields the loop's records, which are written down in ``run`` as well.

    A finished run yields nothing. Every process of a team gets the records; the first one writes.
    """
    saved = run / "recipe.json"
    if (run / "checkpoint").exists() and saved.exists() and Recipe.read(saved) == recipe:
        return
    team = team or Team()
    backbone, settings, heads = starting_point(recipe)
    journal = Journal(run, recipe, team)
    try:
        for record in train(backbone, recipe, run, heads, team):
            journal.write(record)
            yield record
    finally:
        journal.end()
    if team.first:
        with room(run / "checkpoint"):
            _save(backbone.cpu(), settings, heads, recipe, run / "checkpoint")
    team.wait()


def save_student(recipe: Recipe, run: Path, folder: Path, team: Team | None = None) -> None:
    """The weights that the last step of a finished run left, before any averaging, as a checkpoint in ``folder``.

    Of a run with a teacher, its student. Nothing is done where the folder is there already.
    """
    if folder.exists():
        return
    team = team or Team()
    backbone, settings, heads = starting_point(recipe)
    for _ in train(backbone, recipe, run, heads, team, averaged=False):
        raise ValueError(f"{run} is not finished; train to its end first")
    if team.first:
        with room(folder):
            _save(backbone.cpu(), settings, heads, recipe, folder)
    team.wait()


def _save(
    backbone: StableDiffusion,
    settings: ModelSettings,
    heads: dict[str, nn.Module],
    recipe: Recipe,
    folder: Path,
) -> None:
    tasks = [t for t in recipe.mix if t != IMAGE] if recipe.stage == "denoiser" else []
    if tasks:
        settings = settings.model_copy(update={"size": max(recipe.size)})
    if not _as_before(recipe):
        # What the network was taught earlier was taught to other weights.
        settings = settings.model_copy(update={"tasks": {}})
    told = tuple(dict.fromkeys((*settings.trained_on, *_trained_on(recipe))))
    settings = settings.model_copy(update={"name": recipe.name, "trained_on": told})
    settings = settings.with_tasks(tasks, recipe.protocol, recipe.name, recipe.head, recipe.prompts)
    kept = {get_task(t).name: h.cpu() for t, h in heads.items() if get_task(t).name in settings.tasks}
    kept = {t: h for t, h in kept.items() if settings.tasks[t].head != "latent"}
    save_model(backbone, settings, folder, heads=kept)


def _as_before(recipe: Recipe) -> bool:
    """Whether tasks that the run did not teach are answered as they were: only new heads have learned."""
    learned = "full" in (recipe.unet, recipe.text, recipe.decoder) or recipe.unet == "lora"
    return recipe.stage == "denoiser" and not recipe.reset and not learned


def _trained_on(recipe: Recipe) -> list[str]:
    """The run's sources, as a model's card tells them: name, how many samples, licence."""
    lines = []
    for source in recipe.sources:
        folder = Folder(source.path)
        licence = folder.header.get("license") or folder.header.get("licence") or "licence not stated"
        licence = licence.get("id", "licence not stated") if isinstance(licence, dict) else licence
        name = folder.header.get("name") or folder.root.name
        lines.append(f"{name}: {len(source.indices(len(folder)))} samples ({licence}), in {recipe.name}")
    return lines
