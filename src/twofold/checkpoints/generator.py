"""Checks that a model can generate images, before anything is downloaded, opened or written."""

from __future__ import annotations

import os

import torch

from .model import Model, open_model
from .published import PUBLISHED, find_published
from .strict import ModelError

_INSTEAD = "use a text-to-image model, such as 'embedded' or a Stable Diffusion folder"


def check_generator(model: Model) -> None:
    """Check that a model generates images from captions.

    Raises:
        ModelError: it cannot: its network needs more than a noisy latent, has no output layer or no text encoder, or
            its weights were trained for perception only. The message states which, and what to use.
    """
    net = model.backbone
    if net.input_channels != net.latent_channels:
        why = f"its network takes {net.input_channels} channels (an image and the noise), not {net.latent_channels}"
    elif isinstance(net.unet.conv_out, torch.nn.Identity):
        why = "its network has no output layer, because a head reads its features"
    elif net.unet.config.get("class_embed_type") is not None:
        why = "its network needs a task embedding"
    elif net.text_encoder is None:
        why = (
            "it has no text encoder, only the embedded prompts of its tasks (convert it without --drop-text)"
        )
    elif model.settings.generates is False:
        why = "its weights were trained for perception alone and no longer denoise images from captions"
    else:
        return
    raise ModelError(f"model {model.name} cannot generate images: {why}; {_INSTEAD}")


def open_generator(
    name: str | os.PathLike[str] = "embedded",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
) -> Model:
    """`open_model` for a model that generates images; published models that cannot are refused before download.

    Raises:
        ModelError: no such model, a damaged checkpoint, or one that cannot generate images.
    """
    key = find_published(os.fspath(name)) if not os.path.exists(name) else None
    if key is not None and not PUBLISHED[key].generates:
        raise ModelError(
            f"model {key} cannot generate images: its weights were trained for perception alone; {_INSTEAD}"
        )
    model = open_model(name, device, dtype)
    check_generator(model)
    return model
