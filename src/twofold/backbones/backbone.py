"""The interface of a diffusion model that twofold uses for prediction and image generation."""

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
        prediction: output of the network ``b z h w``; ``diffusion.to_x0`` converts it to the clean latent.
        features: the feature maps of the requested `FeatureSet`, coarse to fine; empty for ``False``.
    """

    prediction: Tensor
    features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Posterior:
    """Normal distribution of the latents that an autoencoder encodes images to.

    Attributes:
        mean: ``b z h w``, before scaling.
        std: ``b z h w``, before scaling; None for a deterministic autoencoder.
        scale: the autoencoder's scaling factor.
        dtype: dtype of the scaled latents.
    """

    mean: Tensor
    std: Tensor | None
    scale: float
    dtype: torch.dtype

    def select(self, index: Sequence[int]) -> Posterior:
        """The distributions of the images at ``index``, in which an image may occur several times."""
        rows = list(index)
        if rows == list(range(len(self.mean))):
            return self
        return replace(self, mean=self.mean[rows], std=None if self.std is None else self.std[rows])

    def latent(self, rngs: Rngs | None = None) -> Tensor:
        """The scaled mean ``b z h w``, or a sample if ``rngs`` (one generator, or one per image) is passed."""
        latent = self.mean
        if rngs is not None and self.std is not None:
            latent = latent + self.std * randn_tensor(latent.shape, rngs, latent)
        return (latent * self.scale).to(self.dtype)


class Backbone(nn.Module, abc.ABC):
    """An image autoencoder, a text encoder and a denoising network that share one latent space.

    Attributes:
        schedule: the noise schedule and the prediction type that the network was trained with.
        stride: ratio of the edges of an image and its latent, in pixels.
        latent_channels: number of channels of a latent.
        input_channels: number of input channels of the denoising network.
        feature_channels: channels of the feature maps of the up blocks, coarse to fine.
        levels: channels of the feature maps of all blocks, by resolution level, coarse to fine.
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
        """Channels of the maps of the up blocks and of the image encoder, by stride, coarse to fine."""

    @abc.abstractmethod
    def posterior(self, image: Tensor) -> Posterior:
        """The distribution of the latents ``b z H/stride W/stride`` of images ``b 3 H W`` in [-1, 1]."""

    def encode(self, image: Tensor, rng: Rngs | None = None) -> Tensor:
        """Encode images ``b 3 H W`` in [-1, 1] to scaled latents ``b z H/stride W/stride``.

        The result is the mean of the posterior, or a sample if ``rng`` (one generator, or one per image) is passed.
        """
        return self.posterior(image).latent(rng)

    @abc.abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Decode scaled latents to images ``b 3 H W``, nominally in [-1, 1] but not clipped."""

    @abc.abstractmethod
    def embed(self, prompts: Sequence[str], pad: bool = False) -> Tensor:
        """Encode prompts to ``b tokens d``. ``pad`` pads them to the tokenizer's length, as image generation does."""

    @property
    def has_image_encoder(self) -> bool:
        """Whether `image_features` returns features."""
        return False

    def image_features(self, image: Tensor) -> ImageFeatures | None:
        """The maps of the image encoder for images ``b 3 H W`` in [0, 1], finest first; None without an encoder."""
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
        """Run the denoising network.

        Args:
            x: input ``b c h w``: noisy latents, which may be concatenated with other latents.
            t: time steps ``b``.
            text: prompt embeddings ``b tokens d``.
            features: the feature maps to return.
            class_labels: labels ``b n`` of a network with class embeddings.
            image_features: maps of `image_features`, for a network with an image encoder.
        """
