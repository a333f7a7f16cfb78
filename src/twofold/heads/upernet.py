"""UperNet: class logits from the four feature maps (Xiao et al. 2018, in the setting of GenPercept's paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .head import Head
from .norm import BatchNorm


class UperNetHead(Head):
    """Features of a U-Net's decoding path to class logits.

    The coarsest map is pooled to grids of several sizes (Zhao et al. 2017), the others are added from coarse to fine,
    and all levels are fused. The output has one channel per class.

    Args:
        classes: number of logits.
        channels: of the feature maps, fine to coarse.
        width: of every hidden map.
        pools: edges of the grids that the coarsest map is pooled to.
        dropout: fraction of hidden channels dropped in training, through torch's global generator.

    Raises:
        ValueError: fewer than 2 classes, no feature map or no grid.
    """

    kinds = ("upernet",)

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        width: int = 512,
        pools: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a UperNet head has {classes} classes; expected at least 2")
        if not channels or not pools:
            raise ValueError(
                f"a UperNet head has the channels {channels} and the pooling grids {pools}; expected at least one each"
            )
        self.config = {
            "classes": classes,
            "channels": list(channels),
            "width": width,
            "pools": list(pools),
            "dropout": dropout,
        }
        *fine, coarse = channels
        self.pyramid = _Pyramid(coarse, width, pools)
        self.laterals = nn.ModuleList(_Layer(c, width, 1) for c in fine)
        self.smooth = nn.ModuleList(_Layer(width, width, 3) for _ in fine)
        self.fuse = _Layer(width * len(channels), width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classify.bias))

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> UperNetHead:
        """``channels`` classes; 2/5 as wide as the coarsest feature map: 512 for SD. See `Head.from_backbone`."""
        read = tuple(reversed(backbone.feature_channels))
        defaults: dict[str, Any] = {
            "classes": channels,
            "channels": read,
            "width": max(16, read[-1] * 2 // 5 // 8 * 8),
        }
        return cls(**{**defaults, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w`` each, coarse to fine) to logits ``b classes h*stride w*stride``; ``x0`` is not read.

        Raises:
            ValueError: another number of features than the head has `channels`.
        """
        *fine, coarse = features[::-1]
        if len(features) != len(self.laterals) + 1:
            raise ValueError(f"a UperNet head of {len(self.laterals) + 1} feature maps got {len(features)}")
        maps = [self.pyramid(coarse)]
        for lateral, feature in zip(reversed(self.laterals), reversed(fine), strict=True):
            projected = lateral(feature)
            maps.insert(0, projected + _resized(maps[0], projected.shape[-2:]))
        size = maps[0].shape[-2:]
        smooth = [layer(m) for layer, m in zip(self.smooth, maps[:-1], strict=True)]
        fused = self.fuse(torch.cat([_resized(m, size) for m in (*smooth, maps[-1])], 1))
        logits = self.classify(self.dropout(fused))
        return _resized(logits, (size[0] * backbone.stride, size[1] * backbone.stride))


class _Pyramid(nn.Module):
    """Pyramid pooling: a map concatenated with its averages over the cells of several grids."""

    def __init__(self, channels: int, width: int, pools: Sequence[int]) -> None:
        super().__init__()
        self.pools = tuple(pools)
        self.stages = nn.ModuleList(_Layer(channels, width, 1) for _ in pools)
        self.bottleneck = _Layer(channels + width * len(pools), width, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            _resized(stage(F.adaptive_avg_pool2d(x, cells)), x.shape[-2:])
            for stage, cells in zip(self.stages, self.pools, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *pooled], 1))


class _Layer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
