"""The keypoint head: two transposed convolutions to heatmaps (Xiao et al. 2018; Xu et al. 2022, ViTPose)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .head import Head
from .norm import BatchNorm


class KeypointHead(Head):
    """The feature map at half the latent's resolution to one heatmap per joint at the image's size.

    The transposed convolutions bring it to twice the latent's resolution, and interpolation to the image's. With a
    latent of stride 8 that is from 1/16 to 1/4 of the image's resolution, as in ViTPose.

    Args:
        joints: number of heatmaps.
        channels: of the feature map.
        width: of the hidden maps.

    Raises:
        ValueError: fewer than 1 joint.
    """

    kinds = ("keypoint",)

    def __init__(self, joints: int = 17, channels: int = 1280, width: int = 256) -> None:
        super().__init__()
        if joints < 1:
            raise ValueError(f"a keypoint head has {joints} joints; expected at least 1")
        self.config = {"joints": joints, "channels": channels, "width": width}
        self.layers = nn.Sequential(*_upsample(channels, width), *_upsample(width, width))
        self.heatmaps = nn.Conv2d(width, joints, 1)
        for layer in (*self.layers, self.heatmaps):
            if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(self.heatmaps.bias)  # ty: ignore[invalid-argument-type]

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> KeypointHead:
        """``channels`` joints; 1/5 as wide as its feature map: 256 for SD. See `Head.from_backbone`."""
        read = backbone.feature_channels[-3]
        defaults: dict[str, Any] = {
            "joints": channels,
            "channels": read,
            "width": max(16, read // 5 // 8 * 8),
        }
        return cls(**{**defaults, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w`` each, coarse to fine) to heatmaps ``b joints h*stride w*stride``; ``x0`` is not read.

        Raises:
            ValueError: fewer than three features.
        """
        if len(features) < 3:
            raise ValueError(
                f"a keypoint head reads the third finest feature map and got {len(features)} maps; expected 3 or more"
            )
        size = [n * backbone.stride for n in features[-1].shape[-2:]]
        coarse = self.heatmaps(self.layers(features[-3]))
        return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def _upsample(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), BatchNorm(width), nn.ReLU()
