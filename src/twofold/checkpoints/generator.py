"""Opens models that generate images, and checks that a model can."""

from __future__ import annotations

import os

import torch

from .model import Model, open_model
from .published import PUBLISHED, find_published
from .strict import ModelError

_ADVICE = "use a text-to-image model, such as 'embedded' or a Stable Diffusion folder"


def check_generator(model: Model) -> None:
    """Check that a model generates images from captions.

    Raises:
        ModelError: the network needs more than a noisy latent, has no output layer or no text encoder, or its weights
            were trained for perception only. The message states which, and what to use.
    """
    net = model.backbone
    if net.input_channels != net.latent_channels:
        reason = f"its network takes {net.input_channels} channels (an image and the noise), not {net.latent_channels}"
    elif isinstance(net.unet.conv_out, torch.nn.Identity):
        reason = "its network has no output layer, because a head reads its features"
    elif net.unet.config.get("class_embed_type") is not None:
        reason = "its network needs a task embedding"
    elif net.text_encoder is None:
        reason = (
            "it has no text encoder, only the prompt embeddings of its tasks (convert it without --drop-text)"
        )
    elif model.settings.generates is False:
        reason = "its weights were trained for perception only and no longer generate images from captions"
    else:
        return
    raise ModelError(f"model {model.name} cannot generate images: {reason}; {_ADVICE}")


def open_generator(
    name: str | os.PathLike[str] = "embedded",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
) -> Model:
    """Open a model that generates images, like `open_model`. Unsuitable published models are not downloaded.

    Raises:
        ModelError: there is no such model, its checkpoint is damaged, or it cannot generate images.
    """
    key = find_published(os.fspath(name)) if not os.path.exists(name) else None
    if key is not None and not PUBLISHED[key].generates:
        raise ModelError(
            f"model {key} cannot generate images: its weights were trained for perception only; {_ADVICE}"
        )
    model = open_model(name, device, dtype)
    check_generator(model)
    return model
