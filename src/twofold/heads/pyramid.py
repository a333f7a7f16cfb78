"""A head on a feature pyramid: the U-Net's decoding path and the image encoder's maps, from coarse to fine.

A feature pyramid network (Lin et al. 2017, arXiv 1612.03144) on maps of the strides 32 to 2, so that edges in the image
encoder's features reach the output without passing through the latent. All heads of a run share the pyramid; each has
two convolutions of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..geometry import unit
from .head import Head

Activation = Literal["linear", "unit", "depth", "disparity", "logit"]
_LOW, _HIGH = 0.02, 0.98  # quantiles that become -1 and 1, as in the encoding of depth (GenPercept, Marigold)


class PyramidHead(Head):
    """Feature maps of several strides to an output ``b out h w`` at the image's size.

    Args:
        levels: channels of the maps of each level, coarse to fine, as `Backbone.pyramid`.
        widths: of the pyramid's maps, coarse to fine.
        stride: of the finest level, in image pixels.
        out_channels: of the output; 1 is repeated to three.
        activation: of the last convolution's values. ``linear``: none. ``unit``: vectors of length 1. ``depth`` and
            ``disparity``: the values are logarithms of depth up to a constant; the image's 2 % and 98 % quantiles of
            their exponential, or of its inverse, become -1 and 1. ``logit``: a probability, scaled to [-1, 1].

    Raises:
        ValueError: an unknown activation, or arguments that do not fit together.
    """

    kinds = ("pyramid",)
    reads_features = "pyramid"
    shared_modules = ("pyramid",)
    has_shared_output = True

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        widths: Sequence[int],
        stride: int = 2,
        out_channels: int = 3,
        activation: Activation = "linear",
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(
                f"a pyramid head has no activation {activation!r}; expected one of {', '.join(get_args(Activation))}"
            )
        expected = {"linear": out_channels, "unit": 3}.get(activation, 1)
        if out_channels != expected:
            raise ValueError(
                f"a pyramid head with the activation {activation!r} has {expected} output channels, not {out_channels}"
            )
        if not levels or len(levels) != len(widths) or out_channels < 1 or stride < 1:
            raise ValueError(
                f"a pyramid head has {len(widths)} widths for {len(levels)} levels, {out_channels} output channels and "
                f"stride {stride}; expected one width per level, and at least 1 channel and stride 1"
            )
        self.config = {
            "levels": [list(level) for level in levels],
            "widths": list(widths),
            "stride": stride,
            "out_channels": out_channels,
            "activation": activation,
        }
        self.stride, self.activation, self.counts = stride, activation, [len(level) for level in levels]
        self.pyramid = FeaturePyramid([sum(level) for level in levels], widths)
        self.first = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.last = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> PyramidHead:
        """A head for ``backbone``'s pyramid; see `Head.from_backbone`."""
        levels = backbone.pyramid
        finest = max(2, backbone.stride >> max(0, len(levels) - len(backbone.feature_channels) + 1))
        wide = 96 if max(map(max, levels)) >= 96 else 32
        narrow = [max(16, wide * 2 // 3 // 8 * 8), max(16, wide // 3 // 8 * 8)]
        widths = [wide] * max(0, len(levels) - 2) + narrow[-min(2, len(levels)) :]
        defaults: dict[str, Any] = {
            "levels": levels, "widths": widths, "stride": finest, "out_channels": channels
        }  # fmt: skip
        return cls(**{**defaults, **options})

    def shared_output(self, features: tuple[Tensor, ...], backbone: Backbone) -> list[Tensor]:
        """The pyramid's map of the finest level, ``b c h w``: the same for every task's head."""
        return [self._pyramid_map(features)]

    def forward(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        shared: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Maps in the order of `Backbone.pyramid` to ``b out h w``; ``x0`` is not read.

        ``shared`` is `shared_output` of the same maps, if it is computed already.
        """
        values = self.values(features, backbone.stride, shared)
        if self.activation == "unit":
            return unit(values)
        if self.activation == "logit":
            values = torch.tanh(values / 2)
        elif self.activation in ("depth", "disparity"):
            values = _normalised_exp(values if self.activation == "depth" else -values)
        return values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values

    def values(
        self, features: Sequence[Tensor], stride: int, shared: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The last convolution's output, ``b out h w`` in fp32 at the image's size, before the activation.

        Args:
            features: maps in the order of `Backbone.pyramid`.
            stride: of the latent, in image pixels.
            shared: `shared_output` of the same maps.

        Raises:
            ValueError: another number of maps than the head has levels for.
        """
        [hidden] = [self._pyramid_map(features)] if shared is None else shared
        output = self.last(F.relu(self.first(F.relu(hidden))))
        # The decoding path ends at the latent's resolution, whose size times its stride is the image's.
        level = len(self.counts) - 1 - (stride // self.stride).bit_length() + 1
        size = [int(n) * stride for n in features[sum(self.counts[:level])].shape[-2:]]
        return F.interpolate(output.float(), size, mode="bilinear", align_corners=False)

    def _pyramid_map(self, features: Sequence[Tensor]) -> Tensor:
        if len(features) != sum(self.counts):
            raise ValueError(
                f"this head reads {sum(self.counts)} feature maps (the decoding path's and an image encoder's) and got "
                f"{len(features)}; it belongs to another backbone"
            )
        maps = iter(features)
        return self.pyramid([torch.cat([next(maps) for _ in range(n)], 1) for n in self.counts])


class FeaturePyramid(nn.Module):
    """Maps of several levels to one of the finest level: 1x1 projections, upsampling and residual blocks.

    Args:
        channels: of each level's concatenated maps, coarse to fine.
        widths: of each level's result.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.narrow = nn.ModuleList(
            nn.Conv2d(a, b, 1) if a != b else nn.Identity() for a, b in pairwise(widths)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(w, w, 3, padding=1), nn.ReLU(), nn.Conv2d(w, w, 3, padding=1))
            for w in widths
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """One map ``b c h w`` for each level, coarse to fine, to one of the finest level's size."""
        result: Tensor | None = None
        for i, level in enumerate(levels):
            x = self.lateral[i](level)
            if result is not None:
                larger = F.interpolate(result, x.shape[-2:], mode="bilinear", align_corners=False)
                x = x + self.narrow[i - 1](larger)
            result = x + self.refine[i](x)
        assert result is not None
        return result


def _normalised_exp(log: Tensor) -> Tensor:
    """Exponentials of ``b 1 h w``, each image's 2 % and 98 % quantiles at -1 and 1, clipped."""
    flat = log.flatten(1)
    value = (flat - flat.detach().mean(1, keepdim=True)).clamp(-20, 20).exp()
    known = value.detach()[:, :: max(1, value.shape[1] // 65536)]
    low, high = torch.quantile(known, known.new_tensor([_LOW, _HIGH]), dim=1)[..., None]
    return ((value - low) / (high - low).clamp(min=1e-6) * 2 - 1).clamp(-1, 1).view_as(log)
