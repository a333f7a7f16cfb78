"""What a diffusion model must offer to be perceived with and generated with."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..diffusion import Rngs, Schedule


@dataclass(frozen=True)
class Output:
    """What one look of the network gave.

    Attributes:
        prediction: ``b z h w``; ``diffusion.to_x0`` reads it.
        features: maps of the decoding path, coarse to fine; empty unless asked for.
    """

    prediction: Tensor
    features: tuple[Tensor, ...] = ()


class Backbone(nn.Module, abc.ABC):
    """An image autoencoder, a text encoder and a denoising network that share one latent space.

    Attributes:
        schedule: the noise schedule the network was trained on, and what it predicts.
        stride: image pixels per latent cell, along one edge.
        latent_channels: channels of a latent.
        input_channels: of what the denoising network is shown.
        tap_channels: of the feature maps, coarse to fine.
    """

    schedule: Schedule
    stride: int
    latent_channels: int
    input_channels: int
    tap_channels: tuple[int, ...]

    @abc.abstractmethod
    def encode(self, canvas: Tensor, rng: Rngs | None = None) -> Tensor:
        """``b 3 H W`` in [-1, 1] to scaled latents ``b z H/stride W/stride``.

        The mean of the posterior; a draw from it where generators are given, one or one an image.
        """

    @abc.abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latents to ``b 3 H W``, nominally in [-1, 1] but not clipped."""

    @abc.abstractmethod
    def embed(self, prompts: Sequence[str], pad: bool = False) -> Tensor:
        """Prompts to ``b n d``. ``pad`` fills up to the tokenizer's length, as image generation does."""

    @abc.abstractmethod
    def forward(
        self, x: Tensor, t: Tensor, text: Tensor, features: bool = False, class_labels: Tensor | None = None
    ) -> Output:
        """Look at ``x`` (``b c h w``), being told time steps ``t`` (``b``), text ``b n d`` and class labels."""
