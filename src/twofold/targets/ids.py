"""Ids of classes, objects and parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..geometry import Camera
from ..image.raster_format import RasterFormat
from ..visualization import UNKNOWN
from . import id_levels, levels
from .levels import Levels
from .spec import Descriptor, TargetSpec

_GOLDEN = 0.61803398875
STORAGE: dict[str, Any] = {"codec": "png16", "ignore": [65535]}


class Ids(TargetSpec):
    """Whole numbers."""

    is_ids = True

    def _select(self, raw: Tensor, how: Descriptor, stored: RasterFormat) -> tuple[Tensor, int]:
        """See `TargetSpec._select`; grey stored in several equal channels becomes one."""
        raw, bits = super()._select(raw, how, stored)
        if stored.palette is None and "palette" not in how:
            raw = levels.grey(self.name, raw, stored, "name each id's colour in the descriptor's 'palette'")
        return raw, bits

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.decode`."""
        return id_levels.decode_ids(stored, how)

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """See `TargetSpec.encode`."""
        return id_levels.encode_ids(target, valid, how)

    def value_warning(self, target: Tensor, valid: Tensor) -> str:
        """See `TargetSpec.value_warning`."""
        values = target[valid.expand_as(target)]
        low, high = float(values.min()), float(values.max())
        if low < 0 or bool((values != values.round()).any()):
            return f"{self.name} has values from {low:g} to {high:g}; ids are integers from 0"
        return ""

    def lossless_storage(self, how: Descriptor) -> dict[str, Any]:
        """See `TargetSpec.lossless_storage`."""
        return dict(STORAGE)

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """A colour for each id; see `id_colors`."""
        return torch.where(valid, id_colors(target), UNKNOWN)

    def _from_palette(self, raw: Tensor, how: Descriptor, colors: Tensor) -> tuple[Tensor, int]:
        index, _ = levels.palette_colors(raw, colors)
        return (colors[index, :3].movedim(-1, 0).float(), 8) if "palette" in how else (raw, 8)


def id_colors(ids: Tensor) -> Tensor:
    """Whole numbers ``1 h w`` as colours ``3 h w`` in [0, 1]: 0 is black, consecutive ids have distant hues."""
    # Hues are multiples of the golden ratio, which never repeat.
    hue = (ids * _GOLDEN) % 1
    bright = torch.where(ids % 2 == 0, 0.95, 0.65)
    strong = torch.where(ids % 3 == 0, 0.5, 0.9)
    wave = torch.stack([(n + 6 * hue[0]) % 6 for n in (5.0, 3.0, 1.0)])
    color = bright - bright * strong * torch.minimum(wave, 4 - wave).clamp(0, 1)
    return torch.where(ids == 0, 0.0, color)
