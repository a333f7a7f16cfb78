"""Pretrained image encoders, whose features are passed to the U-Net and to heads that read a feature pyramid.

The latent of an autoencoder has the information to reconstruct an image, but few semantic features. An `ImageEncoder`
provides them. `ImageAdapter` passes its maps to a U-Net like a T2I-Adapter (Mou et al. 2024, arXiv 2302.08453):
zero-initialized 1x1 convolutions, whose outputs are added to the input of the down block of the same stride. A forward
pass without image features, as in image generation, is that of the U-Net alone.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

ImageFeatures = tuple[Tensor, ...]


class ImageEncoder(nn.Module, abc.ABC):
    """A convolutional image encoder with one feature map for each of the strides 2, 4, 8, ...

    Attributes:
        name: name in checkpoints and recipes.
        channels: channels of the maps, finest first; the map of index ``i`` has stride ``2 ** (i + 1)``.
    """

    name: ClassVar[str]
    channels: ClassVar[tuple[int, ...]]

    @abc.abstractmethod
    def forward(self, image: Tensor) -> ImageFeatures:
        """Compute feature maps ``b c ceil(h/stride) ceil(w/stride)``, finest first, of images ``b 3 h w`` in [0, 1]."""


class ImageAdapter(nn.Module):
    """An image encoder, and 1x1 convolutions that adapt its coarser maps to the down blocks of a U-Net.

    Args:
        encoder: the image encoder.
        unet_channels: channels of the input of each down block that an adapted map is added to, finest first.
        first: index of the encoder's map with the stride of the latent.
    """

    def __init__(self, encoder: ImageEncoder, unet_channels: Sequence[int], first: int) -> None:
        super().__init__()
        self.encoder, self.first, self.unet_channels = encoder, first, list(unet_channels)
        incoming = encoder.channels[first : first + len(unet_channels)]
        self.adapters = nn.ModuleList(
            nn.Conv2d(c, u, 1) for c, u in zip(incoming, unet_channels, strict=True)
        )
        for parameter in self.adapters.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def for_unet(cls, encoder: ImageEncoder, unet: Any, stride: int) -> ImageAdapter:
        """Make an adapter for a U-Net, initialized so that it does not change the output.

        Args:
            encoder: the image encoder.
            unet: a ``UNet2DConditionModel``.
            stride: ratio of the edges of an image and its latent, in pixels.

        Raises:
            ValueError: the encoder has no map of this stride.
        """
        first = stride.bit_length() - 2
        if stride & (stride - 1) or not 0 <= first < len(encoder.channels):
            raise ValueError(
                f"the image encoder {encoder.name} has maps of strides 2 to {2 ** len(encoder.channels)}, and the "
                f"latent has stride {stride}; use a backbone whose stride is among them"
            )
        widths = list(unet.config.block_out_channels)
        inputs = [widths[0], *widths[:-1]]
        return cls(encoder, inputs[: len(encoder.channels) - first], first)

    def forward(self, image: Tensor) -> ImageFeatures:
        """The encoder's maps of images ``b 3 h w`` in [0, 1], finest first, before the adapters."""
        return self.encoder(image)

    @contextmanager
    def inject(self, unet: Any, maps: ImageFeatures) -> Generator[None]:
        """Context in which forward hooks add the adapted ``maps`` to the inputs of the down blocks of ``unet``.

        Args:
            unet: the U-Net.
            maps: the encoder's maps, finest first.
        """
        hooks = [
            unet.down_blocks[k].register_forward_pre_hook(
                partial(_add_features, adapter, maps[self.first + k]), with_kwargs=True
            )
            for k, adapter in enumerate(self.adapters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _add_features(
    adapter: nn.Module, features: Tensor, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """Forward pre-hook that adds adapted features to ``hidden_states``, a positional or a keyword argument."""
    residual = adapter(features)
    if "hidden_states" in named:
        return inputs, {**named, "hidden_states": named["hidden_states"] + residual}
    return (inputs[0] + residual, *inputs[1:]), named


def pyramid_channels(decoder: Sequence[int], adapter: ImageAdapter | None) -> tuple[tuple[int, ...], ...]:
    """Channels of the maps of each pyramid level, coarse to fine; see `pyramid_features`.

    Args:
        decoder: channels of the maps of the up blocks, coarse to fine. The last two maps have the resolution of the
            latent; each other map has half the resolution of the next.
        adapter: the image adapter, if there is one.
    """
    levels = [[c] for c in decoder[:-2]] + [list(decoder[-2:])]
    if adapter is None:
        return tuple(tuple(level) for level in levels)
    encoder, first = adapter.encoder.channels, adapter.first
    for k, level in enumerate(reversed(levels)):
        if first + k < len(encoder):
            level.insert(0, encoder[first + k])
    return (*(tuple(level) for level in levels), *((c,) for c in reversed(encoder[:first])))


def pyramid_features(
    decoder: Sequence[Tensor], adapter: ImageAdapter | None, maps: ImageFeatures | None
) -> tuple[Tensor, ...]:
    """Maps of the up blocks and of the image encoder by resolution level, coarse to fine.

    In each level the encoder's map comes first. If there is an adapter but ``maps`` is None, zeros take their place.

    Args:
        decoder: maps of the up blocks, coarse to fine.
        adapter: the image adapter, if there is one.
        maps: the encoder's maps, finest first.
    """
    levels = [[t] for t in decoder[:-2]] + [list(decoder[-2:])]
    if adapter is None:
        return tuple(m for level in levels for m in level)
    first, finest = adapter.first, decoder[-1]
    if maps is None:
        maps = _zeros(adapter, finest)
    for k, level in enumerate(reversed(levels)):
        if first + k < len(maps):
            level.insert(0, maps[first + k])
    return (*(m for level in levels for m in level), *reversed(maps[:first]))


def _zeros(adapter: ImageAdapter, finest: Tensor) -> ImageFeatures:
    """Zeros with the shapes of the encoder's maps of an image whose latent has the size of ``finest``."""
    h, w = (int(n) << (adapter.first + 1) for n in finest.shape[-2:])
    return tuple(
        torch.zeros(len(finest), c, -(-h // 2 ** (i + 1)), -(-w // 2 ** (i + 1))).to(finest)
        for i, c in enumerate(adapter.encoder.channels)
    )
