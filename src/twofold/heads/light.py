"""A head of three convolutions: the network's finest features straight to pixels, without the decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone


class LightHead(nn.Module):
    """The last tap of the decoding path to a canvas, by one pixel shuffle over the stride.

    It costs a tenth of the autoencoder's decoder or less, in use and in training, and its loss is on pixels.

    Args:
        channels: of the last feature map.
        stride: image pixels per latent cell.
        width: of the two hidden layers.
    """

    reads_features = True

    def __init__(self, channels: int, stride: int, width: int = 96) -> None:
        super().__init__()
        self.config = {"channels": channels, "stride": stride, "width": width}
        self.stride = stride
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.paint = nn.Conv2d(width, 3 * stride**2, 3, padding=1, bias=False)
        # All pixels of a cell begin alike, so that no checkerboard has to be unlearned (Aitken et al. 2017).
        with torch.no_grad():
            one = self.paint.weight[:: stride**2].clone()
            self.paint.weight.copy_(one.repeat_interleave(stride**2, 0))

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w``, the last) to a canvas ``b 3 h*stride w*stride``; the latent is not looked at."""
        hidden = F.silu(self.first(features[-1]))
        hidden = hidden + F.silu(self.second(hidden))
        return F.pixel_shuffle(self.paint(hidden), self.stride)
