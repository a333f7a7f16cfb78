"""The keypoint head: two transposed convolutions to heatmaps (Xiao et al. 2018; Xu et al. 2022, ViTPose)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .norm import BatchNorm


class KeypointHead(nn.Module):
    """The tap of half the latent's resolution to heatmaps at twice it, one a joint, brought to the image's size.

    Of a latent of stride 8 that is from 1/16 to 1/4 of the image's resolution, as in ViTPose.

    Args:
        joints: heatmaps painted.
        channels: of the tap.
        width: of the inner maps.

    Raises:
        ValueError: no joint.
    """

    reads_features = True

    def __init__(self, joints: int = 17, channels: int = 1280, width: int = 256) -> None:
        super().__init__()
        if joints < 1:
            raise ValueError(f"a keypoint head paints at least 1 joint, not {joints}")
        self.config = {"joints": joints, "channels": channels, "width": width}
        self.layers = nn.Sequential(*_doubled(channels, width), *_doubled(width, width))
        self.paint = nn.Conv2d(width, joints, 1)
        for layer in (*self.layers, self.paint):
            if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(self.paint.bias)  # ty: ignore[invalid-argument-type]

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> KeypointHead:
        """A fresh one of ``channels`` joints, 1/5 as wide as its tap: 256 of SD's; see `heads.make_head`."""
        tap = backbone.feature_channels[-3]
        fitting: dict[str, Any] = {"joints": channels, "channels": tap, "width": max(16, tap // 5 // 8 * 8)}
        return cls(**{**fitting, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w`` each, coarse to fine) to heatmaps ``b joints h*stride w*stride``; no latent is read.

        Raises:
            ValueError: fewer than three features.
        """
        if len(features) < 3:
            raise ValueError(f"a keypoint head reads the third finest feature, and was given {len(features)}")
        size = [n * backbone.stride for n in features[-1].shape[-2:]]
        heatmaps = self.paint(self.layers(features[-3]))
        return F.interpolate(heatmaps, size=size, mode="bilinear", align_corners=False)


def _doubled(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False), BatchNorm(width), nn.ReLU()
