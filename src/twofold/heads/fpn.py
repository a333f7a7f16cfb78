"""Class logits from features and cross-attention maps under prompts of the class names (VPD, Zhao et al. 2023).

The last map of each level, concatenated with its attention map, goes through a feature pyramid (Lin et al. 2017). As in
panoptic FPN (Kirillov et al. 2019), every level is upsampled to the finest, and all are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .fusion import by_level
from .head import Head
from .norm import BatchNorm


class FPNHead(Head):
    """All maps of a U-Net to class logits ``b classes h*stride w*stride``.

    Args:
        classes: number of logits.
        channels: of the last map of each level, fine to coarse, without the attention maps.
        width: of every hidden map; VPD has 256.
        prompts: the text condition, usually one class name each. Without them the condition is the task's prompt, and
            attention is not read. Their embeddings are part of the head's state, as is VPD's adapter of them.
        text_width: channels of an embedded prompt.
        attention_levels: levels with an attention map, coarse to fine.
        dropout: fraction of hidden channels dropped in training, through torch's global generator.

    Raises:
        ValueError: fewer than 2 classes, no level, or an attention level that does not exist.
    """

    kinds = ("fpn",)

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        width: int = 256,
        prompts: Sequence[str] = (),
        text_width: int = 768,
        attention_levels: Sequence[int] = (1, 2),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"an fpn head has {classes} classes; expected at least 2")
        if not channels or (prompts and max(attention_levels, default=-1) >= len(channels)):
            raise ValueError(
                f"an fpn head of {len(channels)} levels cannot read attention at the levels {list(attention_levels)}"
            )
        self.config = {
            "classes": classes, "channels": list(channels), "width": width, "prompts": list(prompts),
            "text_width": text_width, "attention_levels": list(attention_levels), "dropout": dropout,
        }  # fmt: skip
        self.reads_features = "attention" if prompts else "all"
        self.has_prompts = bool(prompts)
        self.attention_levels = tuple(attention_levels) if prompts else ()
        self.text_adapter = _TextAdapter(len(prompts), text_width) if prompts else None
        count = len(channels)
        # Fine to coarse, as in the config; levels are counted from the coarsest.
        widths = [c + len(prompts) * (count - 1 - i in self.attention_levels) for i, c in enumerate(channels)]
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.scales = nn.ModuleList(_Scale(width, max(1, i)) for i in range(count))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classify.bias))

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> FPNHead:
        """``channels`` classes; 1/5 as wide as the widest map: 256 for SD. See `Head.from_backbone`."""
        maps = tuple(level[-1] for level in reversed(backbone.levels))
        prompts = list(options.get("prompts", ()))
        defaults: dict[str, Any] = {
            "classes": channels,
            "channels": maps,
            "width": max(16, max(maps) // 5 // 8 * 8),
        }
        if prompts:
            with torch.no_grad():
                embeds = torch.stack([backbone.embed([p])[0, -1] for p in prompts]).float().cpu()
            defaults |= {
                "text_width": embeds.shape[-1],
                "attention_levels": backbone.cross_attention_levels,
            }
        head = cls(**{**defaults, **options})
        if prompts:
            assert head.text_adapter is not None
            head.text_adapter.embeds.copy_(embeds)
        return head

    def prompt_embeds(self) -> Tensor | None:
        """Adapted embeddings of `prompts`, ``1 n d``; None without them."""
        return None if self.text_adapter is None else self.text_adapter()

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """All maps (``b c h w``, as `Output.features`) to logits ``b classes h*stride w*stride``.

        Raises:
            ValueError: fewer maps than the backbone has, or fewer attention maps than the head reads.
        """
        last = [level[-1] for level in by_level(features, backbone)]
        attention = features[sum(map(len, backbone.levels)) :]
        if len(attention) < len(self.attention_levels):
            raise ValueError(
                f"this head reads {len(self.attention_levels)} attention maps and got {len(attention)}"
            )
        for level, probs in zip(self.attention_levels, attention, strict=False):
            last[level] = torch.cat([last[level], probs], 1)
        maps: list[Tensor] = []
        for lateral, level in zip(reversed(self.laterals), last, strict=True):
            projected = lateral(level)
            maps.insert(0, projected if not maps else projected + _nearest(maps[0], projected.shape[-2:]))
        sizes = [m.shape[-2:] for m in maps]
        out = None
        for i, (smooth, scale, level) in enumerate(zip(self.smooth, self.scales, maps, strict=True)):
            # Level by level, so that odd sizes fit too.
            upsampled = scale(smooth(level), sizes[:i][::-1])
            out = upsampled if out is None else out + upsampled
        logits = self.classify(self.dropout(out))
        return _resized(logits, [n * backbone.stride for n in sizes[0]])


class _TextAdapter(nn.Module):
    """Embeddings of the prompts and VPD's adapter of them: a residual MLP."""

    embeds: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("embeds", torch.zeros(count, width))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gain = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self) -> Tensor:
        return (self.embeds + self.gain * self.layers(self.embeds))[None]


class _Scale(nn.Module):
    """A level of the pyramid upsampled to the finest size, with a convolution for every doubling."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(steps))
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(steps))

    def forward(self, x: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if k < len(sizes):
                x = _resized(x, sizes[k])
        return x


def _nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="nearest")


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
