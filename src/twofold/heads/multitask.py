"""Several tasks on one fused pyramid: a shared trunk, and a small decoder for each task.

The multi-task setting of Diff-2-in-1 (Zheng et al. 2025): the output of its fusion network, from all maps of a U-Net,
takes the place of the encoder tokens of a multi-task network such as InvPT (Ye & Xu 2022). How the authors joined the
two is not published. The decoders here are our own and small, so that most of the head is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .fusion import SD_LEVELS, SD_WIDTHS, Fusion, by_level, fusion_sizes
from .head import Head

_GROUPS = 8  # of the decoders' group normalisation, which does not depend on the other images of a batch
# Otherwise the finest maps of a narrow network would be a bottleneck for all tasks; Stable Diffusion's are wider.
_LEAST = 24


class MultiTaskHead(Head):
    """All maps of a U-Net to an encoded target or logits ``b out h*stride w*stride``.

    The heads of a run's tasks share `fusion`, one module with one set of weights, running statistics and averages.
    It runs once for all tasks of an image, in training (`HeadGroup`) and in inference.

    Args:
        out_channels: of the output: those of a map, or class logits; 1 is repeated to three.
        levels: total channels of the maps of each level, coarse to fine.
        widths: of the pyramid they are fused to, coarse to fine.
        width: of the decoder's maps, a multiple of 8.

    Raises:
        ValueError: fewer than 1 output channel, a width that cannot be normalised in groups, or another number of
            levels than four.
    """

    kinds = ("multitask",)
    reads_features = "all"
    shared_modules = ("fusion",)
    has_shared_output = True

    def __init__(
        self,
        out_channels: int = 3,
        levels: Sequence[int] = SD_LEVELS,
        widths: Sequence[int] = SD_WIDTHS,
        width: int = 128,
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"a multitask head has {out_channels} output channels; expected at least 1")
        if width < _GROUPS or width % _GROUPS:
            raise ValueError(f"a multitask head has the width {width}; expected a multiple of {_GROUPS}")
        self.config = {
            "out_channels": out_channels, "levels": list(levels), "widths": list(widths), "width": width
        }  # fmt: skip
        self.fusion = Fusion(levels, widths)
        self.decoder = PyramidDecoder(widths, width, out_channels)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> MultiTaskHead:
        """A tenth as wide as the widest map: 128 for SD. See `Head.from_backbone`."""
        levels, widths = fusion_sizes(backbone, _LEAST)
        width = max(32, max(map(max, backbone.levels)) // 10 // _GROUPS * _GROUPS)
        defaults: dict[str, Any] = {
            "out_channels": channels, "levels": levels, "widths": widths, "width": width
        }  # fmt: skip
        return cls(**{**defaults, **options})

    def shared_output(self, features: tuple[Tensor, ...], backbone: Backbone) -> list[Tensor]:
        """The fused pyramid of all maps, ``b c h w`` a level, coarse to fine: the same for every task's head."""
        return self.fusion(by_level(features, backbone))

    def forward(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        shared: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """All maps (``b c h w``, as `Output.features` of ``all``) to ``b out h*stride w*stride``; ``x0`` is not read.

        ``shared`` is `shared_output` of the same maps, if it is computed already.
        """
        output = self.decoder(self.shared_output(features, backbone) if shared is None else shared)
        size = [n * backbone.stride for n in by_level(features, backbone)[-1][0].shape[-2:]]
        output = F.interpolate(output, size=size, mode="bilinear", align_corners=False)
        return output.expand(-1, 3, -1, -1) if output.shape[1] == 1 else output


class PyramidDecoder(nn.Module):
    """A pyramid of maps to ``out`` channels at the size of the finest, from coarse to fine (after Lin et al. 2017).

    Args:
        channels: of the maps, coarse to fine.
        width: of the hidden maps.
        out: channels of the output.
    """

    def __init__(self, channels: Sequence[int], width: int, out: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.blocks = nn.ModuleList(_Block(width) for _ in channels[1:])
        self.output = nn.Conv2d(width, out, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.output.bias))

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps ``b c h w``, coarse to fine, to ``b out h w`` of the last."""
        x, *rest = [lateral(level) for lateral, level in zip(self.laterals, pyramid, strict=True)]
        for block, level in zip(self.blocks, rest, strict=True):
            larger = F.interpolate(x, size=list(level.shape[-2:]), mode="bilinear", align_corners=False)
            x = block(larger + level)
        return self.output(x)


class _Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(F.relu(norm(hidden)))
        return x + hidden
