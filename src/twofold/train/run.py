"""A training run, from recipe to checkpoint folder."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import nn

from ..backbones.encoders import pretrained_encoder
from ..backbones.image_encoder import ImageAdapter
from ..backbones.stable_diffusion import StableDiffusion
from ..checkpoints import (
    ModelSettings,
    NetworkSettings,
    instantiate_network,
    open_model,
    open_network,
    save_model,
    save_network,
)
from ..data.folder import Folder
from ..heads import Head
from ..io import check_own_folder, file_lock
from ..tasks import TASKS, get_task
from .config import IMAGE
from .distributed import DistributedContext
from .loop import Record, train
from .model_config import DenoiserConfig, NetworkConfig
from .recipe import Recipe
from .track import RunLogger
from .trainable import uses_image_features


def open_initial_model(recipe: Recipe) -> tuple[StableDiffusion, ModelSettings, dict[str, Head]]:
    """The initial model of a recipe, its settings and heads; parts in ``model.reset`` are reinitialized.

    ``init_from="new"`` is a small model with random weights. The vocabulary of a new tokenizer is that of the sources'
    captions and the tasks' prompts.

    Raises:
        ValueError: the recipe does not fit the initial model.
    """
    from ..backbones import new

    if recipe.model.init_from == "new":
        backbone = new.miniature(_texts(recipe), recipe.loop.seed)
        _add_image_encoder(backbone, recipe)
        return backbone, ModelSettings(name=recipe.name), {}
    model = open_model(recipe.model.init_from)
    _add_image_encoder(model.backbone, recipe)
    if recipe.reset:
        new.reinitialize(model.backbone, recipe.reset, _texts(recipe), recipe.loop.seed)
    if isinstance(recipe.model, DenoiserConfig) and recipe.tasks:
        _warn_of_frames(recipe, model.settings)
        _check_protocol(recipe, model.backbone)
        protocol = recipe.model.protocol
        new.expand_conv_in(
            model.backbone, protocol.channels(model.backbone.latent_channels), protocol.num_outputs
        )
    return model.backbone, model.settings, {} if "heads" in recipe.reset else dict(model.heads)


def _add_image_encoder(backbone: StableDiffusion, recipe: Recipe) -> None:
    """Add the pretrained image encoder that a recipe names.

    Raises:
        ValueError: the initial model has another one.
    """
    adapter = backbone.image_adapter
    name = recipe.model.image_encoder.name if isinstance(recipe.model, DenoiserConfig) else ""
    if not name or (adapter and adapter.encoder.name == name):
        return
    if adapter is not None:
        raise ValueError(
            f"{recipe.model.init_from} has the image encoder {adapter.encoder.name}, and the recipe names "
            f"{name}; leave image_encoder.name out, or start from a model without one"
        )
    encoder = pretrained_encoder(name)
    backbone.image_adapter = ImageAdapter.for_unet(encoder, backbone.unet, backbone.stride)


def _initial_weights(recipe: Recipe) -> tuple[nn.Module, ModelSettings | NetworkSettings, dict[str, Head]]:
    """The initial model or user-defined network of a recipe, its settings and heads."""
    if isinstance(recipe.model, NetworkConfig):
        return (*_network(recipe.model, recipe.loop.seed), {})
    return open_initial_model(recipe)


def _network(model: NetworkConfig, seed: int) -> tuple[nn.Module, NetworkSettings]:
    """The user-defined network of a recipe with its initial weights, and its settings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = instantiate_network(model.factory, model.options)
    if model.init_from == "new":
        return network, NetworkSettings(network=model.factory)
    trainable = [p.requires_grad for p in network.parameters()]
    opened = open_network(model.init_from, network)
    for parameter, requires_grad in zip(network.parameters(), trainable, strict=True):
        parameter.requires_grad_(requires_grad)
    return network, opened.settings


def _warn_of_frames(recipe: Recipe, settings: ModelSettings) -> None:
    """Warn if the initial model predicts vectors in another frame than the recipe's."""
    for task in map(get_task, recipe.tasks):
        known = settings.tasks.get(task.name)
        if known and task.frame and known.frame not in (None, task.frame) and "unet" not in recipe.reset:
            before, now = (
                f"{recipe.model.init_from} predicts {task.name} in the frame {known.frame}",
                f"is trained in {task.frame}",
            )
            warnings.warn(f"{before} and {now}: training starts with reversed axes", stacklevel=2)


def _check_protocol(recipe: Recipe, backbone: StableDiffusion) -> None:
    """Check that the network can use the protocol's class labels.

    Raises:
        ValueError: it has no class embedding.
    """
    if (
        recipe.denoiser.protocol.class_labels is not None
        and backbone.unet.config.get("class_embed_type") is None
    ):
        raise ValueError(
            "the protocol has class_labels, and this network has no class embedding; remove class_labels"
        )


def _texts(recipe: Recipe) -> list[str]:
    """Captions of the sources and prompts of the tasks, for the vocabulary of a new tokenizer."""
    rows = [row for source in recipe.data.sources for row in Folder(source.path).rows]
    captions = [str(row.get("text") or row.get("caption") or "") for row in rows]
    prompts = [get_task(t).prompt for t in (*TASKS, *recipe.tasks)]
    prompts += recipe.model.prompts.values() if isinstance(recipe.model, DenoiserConfig) else ()
    return captions + prompts * 10


def run_recipe(
    recipe: Recipe, run: Path, distributed: DistributedContext | None = None
) -> Generator[Record, None, None]:
    """Train and save to ``run/checkpoint``; yields the loop's records, which are also logged in ``run``.

    A finished run yields nothing. Every process yields the records; only the first one writes files.

    Raises:
        ValueError: another command trains in ``run``, or it has files of something else; and what `train` raises.
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
        backbone, settings, heads = _initial_weights(recipe)
        logger = RunLogger(run, recipe, distributed)
        try:
            with closing(train(backbone, recipe, run, heads, distributed)) as records:
                for record in records:
                    logger.write(record)
                    yield record
        finally:
            logger.end()
        if distributed.first:
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
    backbone, settings, heads = _initial_weights(recipe)
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
