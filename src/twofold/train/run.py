"""A training run, from recipe to checkpoint folder."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from torch import nn

from ..backbones.stable_diffusion import StableDiffusion
from ..checkpoints import (
    ModelSettings,
    NetworkSettings,
    save_model,
    save_network,
)
from ..data.folder import Folder
from ..heads import Head
from ..io import OutputFolder, check_own_folder, file_lock
from ..tasks import get_task
from .config import IMAGE
from .distributed import DistributedContext
from .initial import initial_weights
from .loop import Record, train
from .model_config import DenoiserConfig, NetworkConfig
from .recipe import Recipe
from .track import RunLogger
from .trainable import uses_image_features


def run_recipe(
    recipe: Recipe, run: Path, distributed: DistributedContext | None = None
) -> Generator[Record, None, None]:
    """Train and save to ``run/checkpoint``; yields the loop's records, which are also logged in ``run``.

    A finished run yields nothing. Every process yields the records; only the first one writes files.

    Raises:
        ValueError: another command trains in ``run``, or it has files of something else; and what `train` raises.
        OSError: the run folder was deleted or replaced during the run.
    """
    saved = run / "recipe.json"
    if (
        (run / "checkpoint").exists()
        and saved.exists()
        and Recipe.read(saved, allow_code=True).equals(recipe)
    ):
        return
    distributed = distributed or DistributedContext()
    with lock_run_dir(run, distributed):
        folder = OutputFolder(run) if distributed.first else None
        backbone, settings, heads = initial_weights(recipe)
        logger = RunLogger(run, recipe, distributed)
        try:
            with closing(train(backbone, recipe, run, heads, distributed)) as records:
                for record in records:
                    logger.write(record)
                    yield record
        finally:
            logger.end()
        if folder is not None:
            folder.check()
            _save(backbone.cpu(), settings, heads, recipe, run / "checkpoint")
        distributed.barrier()


# Files that mark a folder as that of a run.
_RUN_FILES = ("recipe.json", "improvement.json", "skipped.jsonl", "warm-up")


@contextmanager
def lock_run_dir(run: Path, distributed: DistributedContext) -> Generator[None]:
    """Lock the run's folder, so that no second command writes to it.

    Raises:
        ValueError: another command holds the lock, or the folder has files of something else.
    """
    if not distributed.first:
        yield
        return
    try:
        check_own_folder(run, _RUN_FILES)
    except FileExistsError as error:
        raise ValueError(f"{run}: {error.strerror}") from None
    run.mkdir(parents=True, exist_ok=True)
    error = f"another command trains in {run}; wait for it, or choose another --out"
    with file_lock(run, busy=ValueError(error)):
        yield


def save_student(
    recipe: Recipe, run: Path, folder: Path, distributed: DistributedContext | None = None
) -> None:
    """Save the weights of the last step of a finished run, without averaging, as a checkpoint in ``folder``.

    With an EMA teacher these are the student's weights. Does nothing if the folder exists.

    Raises:
        ValueError: the run is not finished.
    """
    if folder.exists():
        return
    distributed = distributed or DistributedContext()
    backbone, settings, heads = initial_weights(recipe)
    for _ in train(backbone, recipe, run, heads, distributed, averaged=False):
        raise ValueError(f"{run} is not finished; train to its end first")
    if distributed.first:
        _save(backbone.cpu(), settings, heads, recipe, folder)
    distributed.barrier()


def _save(
    backbone: nn.Module,
    settings: ModelSettings | NetworkSettings,
    heads: dict[str, Head],
    recipe: Recipe,
    folder: Path,
) -> None:
    trained_on = tuple(dict.fromkeys((*settings.trained_on, *_trained_on(recipe))))
    settings = settings.model_copy(update={"name": recipe.name, "trained_on": trained_on})
    if isinstance(settings, NetworkSettings):
        save_network(backbone, _network_settings(settings, recipe), folder)
        return
    assert isinstance(backbone, StableDiffusion)
    if not _keeps_other_tasks(recipe):
        # Earlier tasks were trained with other weights of the network.
        settings = settings.model_copy(update={"tasks": {}})
    settings = settings.model_copy(update={"generates": _generates(settings, recipe)})
    settings = _with_tasks(settings, backbone, recipe)
    saved = {get_task(t).name: h.cpu() for t, h in heads.items() if get_task(t).name in settings.tasks}
    saved = {t: h for t, h in saved.items() if settings.tasks[t].head != "latent"}
    save_model(backbone, settings, folder, heads=saved)


def _with_tasks(settings: ModelSettings, backbone: StableDiffusion, recipe: Recipe) -> ModelSettings:
    """The settings with the tasks that the run trained."""
    tasks = [t for t in recipe.data.task_weights if t != IMAGE]
    if not isinstance(recipe.model, DenoiserConfig) or not tasks:
        return settings.model_copy(update={"recipes": (*settings.recipes, recipe.name)})
    model = recipe.model
    return settings.model_copy(update={"size": max(recipe.data.size)}).with_tasks(
        tasks,
        model.protocol,
        recipe.name,
        model.head.name,
        model.prompts,
        model.pad_prompts,
        recipe.clipping,
        uses_image_features(backbone, recipe),
        "antialias" if recipe.data.compat == "genpercept" else "bilinear",
    )


def _network_settings(settings: NetworkSettings, recipe: Recipe) -> NetworkSettings:
    """The settings of a user-defined network after the run, with the tasks of this run only."""
    assert isinstance(recipe.model, NetworkConfig)
    update = {
        "network": recipe.model.factory,
        "options": recipe.model.options,
        "size": max(recipe.data.size),
    }
    runs = (*settings.recipes, recipe.name)
    return settings.model_copy(update={**update, "tasks": recipe.tasks, "recipes": runs})


def _generates(before: ModelSettings, recipe: Recipe) -> bool | None:
    """Whether the weights generate images after the run; None if unknown."""
    model = recipe.model
    if isinstance(model, DenoiserConfig):
        if recipe.data.task_weights.get(IMAGE):
            return True
        if "full" in (model.unet, model.text_encoder) or model.unet == "lora":
            return False
    return before.generates


def _keeps_other_tasks(recipe: Recipe) -> bool:
    """Whether predictions of tasks that the run did not train are unchanged: it trained heads only."""
    model = recipe.model
    return isinstance(model, DenoiserConfig) and not model.reset and model.only_heads_train


def _trained_on(recipe: Recipe) -> list[str]:
    """The run's sources for the model card: name, number of samples, licence."""
    lines = []
    for source in recipe.data.sources:
        folder = Folder(source.path)
        licence = folder.header.get("license") or folder.header.get("licence") or "licence not stated"
        licence = licence.get("id", "licence not stated") if isinstance(licence, dict) else licence
        name = folder.header.get("name") or folder.root.name
        lines.append(f"{name}: {len(source.indices(len(folder)))} samples ({licence}), in {recipe.name}")
    return lines
