"""Class logits from a U-Net that is told the classes' names, and where it looked for each (VPD, Zhao et al. 2023).

The last map of each level, beside how much each place looked at each class, goes through a feature pyramid (Lin et al.
2017) and is read as in panoptic FPN (Kirillov et al. 2019): every level is brought to the finest, and all are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .fusion import by_level
from .norm import BatchNorm


class FPNHead(nn.Module):
    """All maps of a U-Net to class logits ``b classes h*stride w*stride``.

    Args:
        classes: how many logits.
        channels: of the last map of each level, fine to coarse, the looks not counted.
        width: of every inner map; VPD has 256 in the pyramid and in the layers behind it.
        prompts: what the network is told, a class or so each; without, it is told the task's prompt, and where it
            looked is not read. What they are embedded to is part of the head's state, as is a small network that
            learns to say them better.
        text_width: of an embedded prompt.
        looked: levels that have a map of looks, coarse to fine.
        dropout: share of inner channels left out in training, through torch's global generator.

    Raises:
        ValueError: fewer than 2 classes, no level, or more levels with looks than there are.
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        width: int = 256,
        prompts: Sequence[str] = (),
        text_width: int = 768,
        looked: Sequence[int] = (1, 2),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(
                f"an fpn head tells classes apart, at least 2 of them; it was asked for {classes}"
            )
        if not channels or (prompts and max(looked, default=-1) >= len(channels)):
            raise ValueError(
                f"an fpn head of {len(channels)} levels cannot read looks at levels {list(looked)}"
            )
        self.config = {
            "classes": classes, "channels": list(channels), "width": width, "prompts": list(prompts),
            "text_width": text_width, "looked": list(looked), "dropout": dropout,
        }  # fmt: skip
        self.reads_features = "attention" if prompts else "all"
        self.looked = tuple(looked) if prompts else ()
        self.words = _Words(len(prompts), text_width) if prompts else None
        count = len(channels)
        # Fine to coarse, as in the config; levels are counted from the coarsest.
        seen = [c + len(prompts) * (count - 1 - i in self.looked) for i, c in enumerate(channels)]
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in seen)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in seen)
        self.scales = nn.ModuleList(_Scale(width, max(1, i)) for i in range(count))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.classify.bias))

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> FPNHead:
        """A fresh one of ``channels`` classes, 1/5 as wide as the widest map: 256 of SD's; see `heads.make_head`."""
        maps = tuple(level[-1] for level in reversed(backbone.levels))
        prompts = list(options.get("prompts", ()))
        fitting: dict[str, Any] = {
            "classes": channels,
            "channels": maps,
            "width": max(16, max(maps) // 5 // 8 * 8),
        }
        if prompts:
            with torch.no_grad():
                said = torch.stack([backbone.embed([p])[0, -1] for p in prompts]).float().cpu()
            fitting |= {"text_width": said.shape[-1], "looked": backbone.cross_attention_levels}
        head = cls(**{**fitting, **options})
        if prompts:
            assert head.words is not None
            head.words.said.copy_(said)
        return head

    def text(self) -> Tensor | None:
        """What the network is told, ``1 n d``, in place of a prompt; None where it is told the prompt."""
        return None if self.words is None else self.words()

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """All maps (``b c h w``, as `Output.features`) to logits ``b classes h*stride w*stride``.

        Raises:
            ValueError: there are fewer maps than the backbone has, or no looks where they are read.
        """
        last = [level[-1] for level in by_level(features, backbone)]
        looks = features[sum(map(len, backbone.levels)) :]
        if len(looks) < len(self.looked):
            raise ValueError(
                f"this head reads {len(self.looked)} maps of attention, and was given {len(looks)}"
            )
        for level, look in zip(self.looked, looks, strict=False):
            last[level] = torch.cat([last[level], look], 1)
        maps: list[Tensor] = []
        for lateral, level in zip(reversed(self.laterals), last, strict=True):
            found = lateral(level)
            maps.insert(0, found if not maps else found + _nearest(maps[0], found.shape[-2:]))
        sizes = [m.shape[-2:] for m in maps]
        out = None
        for i, (smooth, scale, found) in enumerate(zip(self.smooth, self.scales, maps, strict=True)):
            # One size after the other, so that cells without a half fit too.
            seen = scale(smooth(found), sizes[:i][::-1])
            out = seen if out is None else out + seen
        logits = self.classify(self.dropout(out))
        return _resized(logits, [n * backbone.stride for n in sizes[0]])


class _Words(nn.Module):
    """What classes' names were embedded to, and a small network that learns to say them better (VPD's adapter)."""

    said: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.register_buffer("said", torch.zeros(count, width))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gain = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self) -> Tensor:
        return (self.said + self.gain * self.layers(self.said))[None]


class _Scale(nn.Module):
    """A level of the pyramid brought to the finest size, by a convolution for every doubling."""

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
