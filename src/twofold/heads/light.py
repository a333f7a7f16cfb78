"""A small convolutional head: the network's finest features straight to pixels, without the decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone


class LightHead(nn.Module):
    """The last tap of the decoding path to a canvas, by two pixel shuffles over the stride.

    It costs a tenth of the autoencoder's decoder or less, in use and in training, and its loss is on pixels.

    Args:
        channels: of the last feature map.
        stride: image pixels per latent cell.
        width: of the hidden layers at the latent's resolution.
        fine: channels at half the image's resolution, where neighbouring cells are blended into each other, so that
            their edges are not to be seen.
        out: channels painted.
    """

    reads_features = True

    def __init__(self, channels: int, stride: int, width: int = 96, fine: int = 16, out: int = 3) -> None:
        super().__init__()
        self.config = {"channels": channels, "stride": stride, "width": width, "fine": fine, "out": out}
        self.coarse = stride // 2
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.paint = _shuffled(width, fine, self.coarse)
        self.blend = nn.Conv2d(fine, fine, 3, padding=1)
        self.finish = _shuffled(fine, out, 2)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> LightHead:
        """A fresh one, of three channels even where one is asked for; see `heads.make_head`."""
        fitting: dict[str, Any] = {
            "channels": backbone.feature_channels[-1],
            "stride": backbone.stride,
            "out": 3 if channels == 1 else channels,
        }
        return cls(**{**fitting, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w``, the last) to a canvas ``b out h*stride w*stride``; the latent is not looked at."""
        hidden = F.silu(self.first(features[-1]))
        hidden = hidden + F.silu(self.second(hidden))
        painted = F.pixel_shuffle(self.paint(hidden), self.coarse)
        painted = painted + F.silu(self.blend(painted))
        return F.pixel_shuffle(self.finish(painted), 2)


def _shuffled(channels: int, out: int, scale: int) -> nn.Conv2d:
    """A convolution before a pixel shuffle: a cell's pixels begin alike, against checkerboards (Aitken et al. 2017)."""
    conv = nn.Conv2d(channels, out * scale**2, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:: scale**2].clone().repeat_interleave(scale**2, 0))
    return conv
