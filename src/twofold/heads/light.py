"""A small convolutional head on the network's finest feature map, in place of the autoencoder's decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .head import Head


class LightHead(Head):
    """The last feature map of the decoding path to an encoded target, by two pixel shuffles over the stride.

    It costs at most a tenth of the autoencoder's decoder, in inference and in training, and its loss is on pixels.

    Args:
        channels: of the last feature map.
        stride: image pixels per latent cell.
        width: of the hidden layers at the latent's resolution.
        fine: channels at half the image's resolution, where a convolution over neighbouring cells removes block
            artifacts.
        out_channels: of the output.
    """

    kinds = ("light",)

    def __init__(
        self, channels: int, stride: int, width: int = 96, fine: int = 16, out_channels: int = 3
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels, "stride": stride, "width": width, "fine": fine, "out_channels": out_channels
        }  # fmt: skip
        self.coarse = stride // 2
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.upsample = _shuffled(width, fine, self.coarse)
        self.deblock = nn.Conv2d(fine, fine, 3, padding=1)
        self.output = _shuffled(fine, out_channels, 2)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> LightHead:
        """Three output channels even for ``channels`` of 1; see `Head.from_backbone`."""
        defaults: dict[str, Any] = {
            "channels": backbone.feature_channels[-1],
            "stride": backbone.stride,
            "out_channels": 3 if channels == 1 else channels,
        }
        return cls(**{**defaults, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """The last of the features ``b c h w`` to ``b out h*stride w*stride``; ``x0`` is not read."""
        hidden = F.silu(self.first(features[-1]))
        hidden = hidden + F.silu(self.second(hidden))
        fine = F.pixel_shuffle(self.upsample(hidden), self.coarse)
        fine = fine + F.silu(self.deblock(fine))
        return F.pixel_shuffle(self.output(fine), 2)


def _shuffled(channels: int, out: int, scale: int) -> nn.Conv2d:
    """A convolution before a pixel shuffle: a cell's pixels start equal, against checkerboards (Aitken et al. 2017)."""
    conv = nn.Conv2d(channels, out * scale**2, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:: scale**2].clone().repeat_interleave(scale**2, 0))
    return conv
