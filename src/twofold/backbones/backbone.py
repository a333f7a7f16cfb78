"""The contract of a diffusion model that twofold predicts and generates with."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..diffusion import Rngs, Schedule, randn_tensor
from .feature_collector import FeatureSet
from .image_encoder import ImageFeatures


@dataclass(frozen=True)
class Output:
    """The result of one forward pass of the denoising network.

    Attributes:
        prediction: ``b z h w``; ``diffusion.to_x0`` converts it to the clean latent.
        features: maps, coarse to fine, of the requested `FeatureSet`; empty for ``False``. ``True``: one a level, of
            the decoding path. ``all``: those of every block in the order of `Backbone.levels`. ``attention``: the same,
            followed by cross-attention probabilities ``b tokens h w``, one map a level except the finest. ``pyramid``:
            those of the decoding path and of the image encoder in the order of `Backbone.pyramid`.
    """

    prediction: Tensor
    features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of the latents that an autoencoder encodes images to.

    Attributes:
        mean: ``b z h w``, not scaled.
        std: the same shape; None for a deterministic autoencoder.
        scale: factor of the scaled latents.
        dtype: of the scaled latents.
    """

    mean: Tensor
    std: Tensor | None
    scale: float
    dtype: torch.dtype

    def select(self, index: Sequence[int]) -> Posterior:
        """The distributions at ``index``, which may repeat."""
        rows = list(index)
        if rows == list(range(len(self.mean))):
            return self
        return replace(self, mean=self.mean[rows], std=None if self.std is None else self.std[rows])

    def latent(self, rngs: Rngs | None = None) -> Tensor:
        """The scaled mean ``b z h w``, or a sample if ``rngs`` (one generator, or one per image) are passed."""
        latent = self.mean
        if rngs is not None and self.std is not None:
            latent = latent + self.std * randn_tensor(latent.shape, rngs, latent)
        return (latent * self.scale).to(self.dtype)


class Backbone(nn.Module, abc.ABC):
    """An image autoencoder, a text encoder and a denoising network that share one latent space.

    Attributes:
        schedule: the noise schedule the network was trained on, and its prediction type.
        stride: image pixels per latent cell, along one edge.
        latent_channels: channels of a latent.
        input_channels: of the denoising network.
        feature_channels: of the feature maps of the decoding path, coarse to fine.
        levels: channels of every block's map by level, coarse to fine.
        cross_attention_levels: indices into ``levels`` whose cross-attention probabilities can be collected.
    """

    schedule: Schedule
    stride: int
    latent_channels: int
    input_channels: int
    feature_channels: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    cross_attention_levels: tuple[int, ...]

    @property
    @abc.abstractmethod
    def pyramid(self) -> tuple[tuple[int, ...], ...]:
        """Channels of the maps of the decoding path and of the image encoder, by stride, coarse to fine."""

    @abc.abstractmethod
    def posterior(self, image: Tensor) -> Posterior:
        """The distribution of the latents ``b z H/stride W/stride`` of images ``b 3 H W`` in [-1, 1]."""

    def encode(self, image: Tensor, rng: Rngs | None = None) -> Tensor:
        """``b 3 H W`` in [-1, 1] to scaled latents ``b z H/stride W/stride``.

        The mean of the posterior, or a sample from it if ``rng`` (one generator, or one per image) is passed.
        """
        return self.posterior(image).latent(rng)

    @abc.abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latents to ``b 3 H W``, nominally in [-1, 1] but not clipped."""

    @abc.abstractmethod
    def embed(self, prompts: Sequence[str], pad: bool = False) -> Tensor:
        """Prompts to ``b n d``. ``pad`` pads to the tokenizer's length, as image generation does."""

    @property
    def has_image_encoder(self) -> bool:
        """Whether `image_features` gives features."""
        return False

    def image_features(self, image: Tensor) -> ImageFeatures | None:
        """The image encoder's maps of images ``b 3 H W`` in [0, 1], finest first; None without an encoder."""
        return None

    @abc.abstractmethod
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        features: FeatureSet = False,
        class_labels: Tensor | None = None,
        image_features: ImageFeatures | None = None,
    ) -> Output:
        """Denoise ``x`` (``b c h w``) at time steps ``t`` (``b``), given text ``b n d``, labels and image features."""
