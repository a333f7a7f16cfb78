"""Image encoders beside the latent: pretrained image features for the U-Net and for heads that read a pyramid.

An autoencoder's latent keeps what is needed to reconstruct an image, not what is needed to recognise it. An
`ImageEncoder` adds the latter. `ImageAdapter` brings its maps to a U-Net as a T2I-adapter does (Mou et al. 2024,
arXiv 2302.08453): 1x1 convolutions that start at zero, added to the input of each down block of the same stride. A call
without image features leaves the network as it is, which is what image generation does.
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
    """A convolutional image encoder: one feature map for each of the strides 2, 4, 8, ...

    Attributes:
        name: that checkpoints and recipes know it by.
        channels: of the maps, finest first; the map of index ``i`` has stride ``2 ** (i + 1)``.
    """

    name: ClassVar[str]
    channels: ClassVar[tuple[int, ...]]

    @abc.abstractmethod
    def forward(self, image: Tensor) -> ImageFeatures:
        """Feature maps ``b c ceil(h/stride) ceil(w/stride)``, finest first, of images ``b 3 h w`` in [0, 1]."""


class ImageAdapter(nn.Module):
    """An image encoder and the 1x1 convolutions that bring its coarser maps to a U-Net's down blocks.

    Args:
        encoder: of images.
        unet_channels: of the input of each down block that receives a map, finest first.
        first: index of the encoder's map whose stride is that of the latent.
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
        """An adapter that leaves ``unet`` unchanged at first; ``stride`` is that of its latent, in image pixels.

        Raises:
            ValueError: the encoder has no map at the latent's stride.
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
        """The encoder's maps of images ``b 3 h w`` in [0, 1], finest first."""
        return self.encoder(image)

    @contextmanager
    def added(self, unet: Any, maps: ImageFeatures) -> Generator[None]:
        """Add the adapted ``maps`` to the inputs of the down blocks in the calls made inside, then remove the hooks."""
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
    """A forward pre-hook that adds adapted features to ``hidden_states``, however they are passed."""
    extra = adapter(features)
    if "hidden_states" in named:
        return inputs, {**named, "hidden_states": named["hidden_states"] + extra}
    return (inputs[0] + extra, *inputs[1:]), named


def pyramid_channels(decoder: Sequence[int], adapter: ImageAdapter | None) -> tuple[tuple[int, ...], ...]:
    """Channels of the maps of each pyramid level, coarse to fine; see `pyramid_features`.

    Args:
        decoder: channels of the decoding path's maps, coarse to fine. The last two have the latent's resolution, each
            of the others half the resolution of the next.
        adapter: of an image encoder, if there is one.
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
    """Maps of the decoding path and of the image encoder, level by level, coarse to fine.

    In a level the encoder's map comes first. A network that has an encoder but gets no image features uses zeros
    instead.

    Args:
        decoder: maps of the decoding path, coarse to fine.
        adapter: of the image encoder, if there is one.
        maps: the encoder's, finest first.
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
    """Maps of zeros as the encoder would give for an image whose latent has the size of ``finest``."""
    h, w = (int(n) << (adapter.first + 1) for n in finest.shape[-2:])
    return tuple(
        torch.zeros(len(finest), c, -(-h // 2 ** (i + 1)), -(-w // 2 ** (i + 1))).to(finest)
        for i, c in enumerate(adapter.encoder.channels)
    )
