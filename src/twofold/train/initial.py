"""What a run starts from: the model or network that its recipe names, with the heads and channels it trains."""

from __future__ import annotations

import warnings

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
)
from ..data.folder import Folder
from ..heads import Head
from ..tasks import TASKS, get_task
from .model_config import DenoiserConfig, NetworkConfig
from .recipe import Recipe


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


def initial_weights(recipe: Recipe) -> tuple[nn.Module, ModelSettings | NetworkSettings, dict[str, Head]]:
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
