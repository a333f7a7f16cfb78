"""What a diffusion model must offer to be perceived with and generated with."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..diffusion import Rngs, Schedule
from .image_encoder import ImageFeatures
from .taps import Taps


@dataclass(frozen=True)
class Output:
    """What one look of the network gave.

    Attributes:
        prediction: ``b z h w``; ``diffusion.to_x0`` reads it.
        features: maps, coarse to fine; empty unless asked for. One a level, of the decoding path; or, of ``all``, those
            of every block in the order of `Backbone.levels`; or these and, of ``attention``, how much each place looked
            at each word, ``b n h w``, a map a level but the finest; or, of ``pyramid``, those of the decoding path and
            of the image encoder in the order of `Backbone.pyramid`.
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
        levels: channels of every block's map by level, coarse to fine.
        look_levels: those of them, counted from the coarsest, of which it is known where the network looked.
    """

    schedule: Schedule
    stride: int
    latent_channels: int
    input_channels: int
    tap_channels: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    look_levels: tuple[int, ...]

    @property
    @abc.abstractmethod
    def pyramid(self) -> tuple[tuple[int, ...], ...]:
        """Channels of the maps of the decoding path and of the image encoder, by stride, coarse to fine."""

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

    def image_features(self, image: Tensor) -> ImageFeatures | None:
        """The image encoder's maps of images ``b 3 H W`` in [0, 1], finest first; None without an encoder."""
        return None

    @abc.abstractmethod
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        features: Taps = False,
        class_labels: Tensor | None = None,
        image_features: ImageFeatures | None = None,
    ) -> Output:
        """Denoise ``x`` (``b c h w``) at time steps ``t`` (``b``), given text ``b n d``, labels and image features."""
