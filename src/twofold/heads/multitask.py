"""Several tasks on one fused pyramid: a trunk that all of them learn together, and a small decoder each.

The multi-task setting of Diff-2-in-1 (Zheng et al. 2025), read as follows: what its fusion network makes of all maps of
a U-Net stands where a multi-task network such as InvPT (Ye & Xu 2022) has the tokens of its encoder. How the authors
joined the two was not published; the decoders here are ours, and small, so that what is shared is most of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .fusion import SD_LEVELS, SD_WIDTHS, Fusion, by_level, fitting

_GROUPS = 8  # of the decoders' normalisation, which does not look at the other pictures of a batch
# The finest maps of a narrow network would else be a bottleneck for all tasks at once; Stable Diffusion's are wider.
_LEAST = 24


class MultiTaskHead(nn.Module):
    """All maps of a U-Net to a canvas or logits ``b out h*stride w*stride``.

    Alone it is a head as any other. Heads of several tasks of a run have one `fusion` between them, the same module:
    one set of weights, of running statistics and of averages. Where an image is trained under several tasks at once,
    `HeadGroup` runs it once for all of them; in use, and in training with one task an example, it is run once a task.

    Args:
        out: channels painted: of a map, or class logits; 1 is repeated to three.
        levels: channels of all maps of a level together, coarse to fine.
        widths: of the pyramid they are fused to, coarse to fine.
        width: of the decoder's maps, a multiple of 8.

    Raises:
        ValueError: nothing is painted, a width that cannot be normalised in groups, or a U-Net of other than four
            levels.
    """

    reads_features = "all"
    shares = ("fusion",)

    def __init__(
        self,
        out: int = 3,
        levels: Sequence[int] = SD_LEVELS,
        widths: Sequence[int] = SD_WIDTHS,
        width: int = 128,
    ) -> None:
        super().__init__()
        if out < 1:
            raise ValueError(f"a multitask head paints at least 1 channel, not {out}")
        if width < _GROUPS or width % _GROUPS:
            raise ValueError(f"a multitask head's width is a multiple of {_GROUPS}, not {width}")
        self.config = {"out": out, "levels": list(levels), "widths": list(widths), "width": width}
        self.fusion = Fusion(levels, widths)
        self.decoder = PyramidDecoder(widths, width, out)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> MultiTaskHead:
        """A fresh one of ``channels``, a tenth as wide as the widest map: 128 of SD's; see `heads.make_head`."""
        levels, widths = fitting(backbone, _LEAST)
        width = max(32, max(map(max, backbone.levels)) // 10 // _GROUPS * _GROUPS)
        fitted: dict[str, Any] = {"out": channels, "levels": levels, "widths": widths, "width": width}
        return cls(**{**fitted, **options})

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
        """All maps (``b c h w``, as `Output.features` of ``all``) to ``b out h*stride w*stride``; no latent is read.

        ``shared`` is `shared_output` of the same maps, where it is there already.
        """
        painted = self.decoder(self.shared_output(features, backbone) if shared is None else shared)
        size = [n * backbone.stride for n in by_level(features, backbone)[-1][0].shape[-2:]]
        painted = F.interpolate(painted, size=size, mode="bilinear", align_corners=False)
        return painted.expand(-1, 3, -1, -1) if painted.shape[1] == 1 else painted


class PyramidDecoder(nn.Module):
    """A pyramid of maps to ``out`` channels at the finest one's size, from coarse to fine (after Lin et al. 2017).

    Args:
        channels: of the maps, coarse to fine.
        width: of the inner maps.
        out: channels painted.
    """

    def __init__(self, channels: Sequence[int], width: int, out: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.blocks = nn.ModuleList(_Block(width) for _ in channels[1:])
        self.paint = nn.Conv2d(width, out, 1)
        nn.init.normal_(self.paint.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.paint.bias))

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps ``b c h w``, coarse to fine, to ``b out h w`` of the last."""
        first, *rest = [lateral(level) for lateral, level in zip(self.laterals, pyramid, strict=True)]
        for block, level in zip(self.blocks, rest, strict=True):
            larger = F.interpolate(first, size=list(level.shape[-2:]), mode="bilinear", align_corners=False)
            first = block(larger + level)
        return self.paint(first)


class _Block(nn.Module):
    """A map and what two convolutions add to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(F.relu(norm(hidden)))
        return x + hidden
