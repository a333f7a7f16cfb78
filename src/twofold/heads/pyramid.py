"""A head that reads a pyramid: the U-Net's decoding path and the image encoder's maps, from coarse to fine.

A feature pyramid network (Lin et al. 2017, arXiv 1612.03144) on maps of the strides 32 to 2, so that what the image
encoder sees of edges reaches the output without passing through the latent. All heads of a run share the pyramid and
have two convolutions of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone

Ending = Literal["linear", "unit", "depth", "disparity", "logit"]
_LOW, _HIGH = 0.02, 0.98  # quantiles that become -1 and 1, as in the encoding of depth (GenPercept, Marigold)


class PyramidHead(nn.Module):
    """Feature maps of several strides to an output ``b out h w`` at the image's size.

    Args:
        levels: channels of the maps of each level, coarse to fine, as `Backbone.pyramid`.
        widths: of the pyramid's maps, coarse to fine.
        stride: of the finest level, in image pixels.
        out: channels of the output; 1 is repeated to three.
        ending: what becomes of the last convolution's values. ``linear``: nothing. ``unit``: vectors of length 1.
            ``depth`` and ``disparity``: the values are logarithms of depth up to a constant; the image's 2 % and 98 %
            quantiles of their exponential, or of its inverse, become -1 and 1. ``logit``: a probability, from -1 to 1.

    Raises:
        ValueError: an unknown ending, or numbers that do not belong together.
    """

    reads_features = "pyramid"
    shares = ("pyramid",)

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        widths: Sequence[int],
        stride: int = 2,
        out: int = 3,
        ending: Ending = "linear",
    ) -> None:
        super().__init__()
        if ending not in get_args(Ending):
            raise ValueError(
                f"unknown ending {ending!r} of a pyramid head; one of {', '.join(get_args(Ending))}"
            )
        if (ending in ("depth", "disparity", "logit") and out != 1) or (ending == "unit" and out != 3):
            raise ValueError(f"a pyramid head with the ending {ending!r} has not {out} channels")
        if not levels or len(levels) != len(widths) or out < 1 or stride < 1:
            raise ValueError(
                f"a pyramid head has one width for each level and at least 1 channel, not {len(widths)} widths for "
                f"{len(levels)} levels, {out} channels and stride {stride}"
            )
        self.config = {
            "levels": [list(level) for level in levels],
            "widths": list(widths),
            "stride": stride,
            "out": out,
            "ending": ending,
        }
        self.stride, self.ending, self.counts = stride, ending, [len(level) for level in levels]
        self.pyramid = FeaturePyramid([sum(level) for level in levels], widths)
        self.first = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.last = nn.Conv2d(widths[-1], out, 3, padding=1)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> PyramidHead:
        """A fresh one for ``backbone``'s pyramid; see `heads.make_head`."""
        levels = backbone.pyramid
        finest = max(2, backbone.stride >> max(0, len(levels) - len(backbone.feature_channels) + 1))
        wide = 96 if max(map(max, levels)) >= 96 else 32
        narrow = [max(16, wide * 2 // 3 // 8 * 8), max(16, wide // 3 // 8 * 8)]
        widths = [wide] * max(0, len(levels) - 2) + narrow[-min(2, len(levels)) :]
        fitted: dict[str, Any] = {"levels": levels, "widths": widths, "stride": finest, "out": channels}
        return cls(**{**fitted, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Maps in the order of `Backbone.pyramid` to ``b out h w``; the latent is not read."""
        values = self.values(features, backbone.stride)
        if self.ending == "unit":
            return F.normalize(values, dim=1, eps=1e-6)
        if self.ending == "logit":
            values = torch.tanh(values / 2)
        elif self.ending in ("depth", "disparity"):
            values = _ranged(values if self.ending == "depth" else -values)
        return values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values

    def values(self, features: Sequence[Tensor], stride: int) -> Tensor:
        """What the last convolution gives, ``b out h w`` in fp32 at the image's size, before the ending.

        Args:
            features: maps in the order of `Backbone.pyramid`.
            stride: of the latent, in image pixels.

        Raises:
            ValueError: another number of maps than the head was made for.
        """
        if len(features) != sum(self.counts):
            raise ValueError(
                f"this head reads {sum(self.counts)} maps (the decoding path's and an image encoder's), and was given "
                f"{len(features)}; it was made for another backbone"
            )
        maps = iter(features)
        levels = [torch.cat([next(maps) for _ in range(n)], 1) for n in self.counts]
        hidden = self.pyramid(levels)
        found = self.last(F.relu(self.first(F.relu(hidden))))
        # The decoding path ends at the latent's resolution, whose maps are whole cells of the image.
        latent = levels[len(levels) - 1 - (stride // self.stride).bit_length() + 1]
        size = [int(n) * stride for n in latent.shape[-2:]]
        return F.interpolate(found.float(), size, mode="bilinear", align_corners=False)


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


def _ranged(log: Tensor) -> Tensor:
    """Exponentials of ``b 1 h w``, each image's 2 % and 98 % quantiles at -1 and 1, clipped."""
    flat = log.flatten(1)
    value = (flat - flat.detach().mean(1, keepdim=True)).clamp(-20, 20).exp()
    known = value.detach()[:, :: max(1, value.shape[1] // 65536)]
    low, high = torch.quantile(known, known.new_tensor([_LOW, _HIGH]), dim=1)[..., None]
    return ((value - low) / (high - low).clamp(min=1e-6) * 2 - 1).clamp(-1, 1).view_as(log)
