"""Maps of real numbers in 16-bit grey PNG: what a level stands for is chosen by the map and written into the file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from twofold.image.bands import by_rows
from twofold.image.errors import ImageError, decoding
from twofold.image.maps import read_map, write_map

# Key of the PNG's text chunk that holds the quantization as JSON.
KEY = "twofold"
TOP = 65535
# Metres a level, the first that fits is taken: up to 65, 655 and 6553 m.
METRE_SCALES = (0.001, 0.01, 0.1)
# A distance beyond this is "far" (the inverse of a disparity near 0), not a measurement.
_FAR = 1e5
_SLACK = 1e-3
# Pixels that are processed together.
_PART = 2**18


@dataclass(frozen=True)
class Quantization:
    """What levels of 16 bits stand for: ``scale * level + offset``, in ``unit``.

    Attributes:
        scale, offset: of a level.
        unit: of the result, in words.
        unknown: the level of a pixel without a number (NaN); None where every level is a number.
        infinite: the level of a pixel that is infinitely far; None as above.
    """

    scale: float
    offset: float = 0.0
    unit: str = ""
    unknown: int | None = None
    infinite: int | None = None

    def encode(self, x: Tensor) -> Tensor:
        """Numbers to levels 0 to 65535, float32."""
        first, last = (1, TOP - 1) if self.unknown is not None else (0, TOP)
        levels = ((x.double() - self.offset) / self.scale).round()
        levels = levels.nan_to_num(nan=0.0, posinf=last, neginf=first).clamp(first, last)
        if self.infinite is not None:
            levels = torch.where(x >= _FAR, float(self.infinite), levels)
        if self.unknown is not None:
            levels = torch.where(x.isnan(), float(self.unknown), levels)
        return levels.float()

    def decode(self, levels: Tensor) -> Tensor:
        """Levels to numbers, float32: NaN where unknown, infinity where infinitely far."""
        x = (levels.double() * self.scale + self.offset).float()
        if self.unknown is not None:
            x = torch.where(levels == self.unknown, math.nan, x)
        return x if self.infinite is None else torch.where(levels == self.infinite, math.inf, x)


def metre_quantization(metres: Tensor) -> Quantization | None:
    """Millimetres where all finite distances fit into 16 bits, else centimetres, else decimetres, else None.

    The error is half a level: 0.5 mm up to 65.534 m.
    """
    ends = finite_range(metres, _FAR)
    most = ends[1] if ends else 0.0
    scale = next((s for s in METRE_SCALES if most <= (TOP - 1) * s), None)
    return None if scale is None else Quantization(scale, 0.0, "m", 0, TOP)


def range_quantization(x: Tensor, unit: str) -> Quantization:
    """Levels 1 to 65534 over the finite range of a map; `share_quantization` where all of it is in [0, 1]."""
    low, high = finite_range(x) or (0.0, 1.0)
    scale = (high - low) / (TOP - 2) or 1.0
    return Quantization(scale, low - scale, unit, 0, None)


def finite_range(x: Tensor, below: float = math.inf) -> tuple[float, float] | None:
    """The smallest and largest finite number of a map that is under ``below``; None where there is none."""
    low, high = math.inf, -math.inf
    for part in x.reshape(-1).split(_PART):  # selecting from all at once takes 4 times the map's memory
        known = part[part.isfinite() & (part < below)]
        if known.numel():
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    return (low, high) if low <= high else None


def share_quantization(x: Tensor, unit: str) -> Quantization | None:
    """Levels 0 to 65535 for 0 to 1, where every number of a map is in that range; else None."""
    return Quantization(1 / TOP, 0.0, unit) if is_within(x, 0, 1) else None


def is_within(x: Tensor, least: float, most: float) -> bool:
    """Whether every number of a map is in this range, up to a small overshoot; NaN is in none."""
    low, high = (float(v) for v in torch.aminmax(x))
    return low >= least - _SLACK and high <= most + _SLACK


def write_quantized(path: str | os.PathLike[str], x: Tensor, how: Quantization) -> None:
    """A map ``1 h w`` to a 16-bit grey PNG with the scale of its levels in its text."""
    write_map(path, by_rows(how.encode, x), text={KEY: json.dumps(asdict(how))})


def read_quantized(path: str | os.PathLike[str]) -> tuple[Tensor, Quantization]:
    """A map ``1 h w`` in its unit, as `write_quantized` wrote it, and how it was stored.

    Raises:
        ImageError: the file does not say what its levels stand for.
    """
    how = quantization_of(path)
    if how is None:
        raise ImageError(f"{path} does not say what its levels stand for; read it with read_map and scale it")
    return how.decode(read_map(path)), how


def quantization_of(path: str | os.PathLike[str]) -> Quantization | None:
    """The scale of a PNG's levels; None where it has none, or the file is none."""
    if Path(path).suffix.lower() != ".png":
        return None
    with decoding(str(path)), Image.open(path, formats=("PNG",)) as image:
        text = str(image.info.get(KEY, ""))
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _checked(entry) if isinstance(entry, dict) else None


def _checked(entry: Mapping[str, Any]) -> Quantization | None:
    scale, offset = entry.get("scale"), entry.get("offset")
    levels = [entry.get("unknown"), entry.get("infinite")]
    if not all(n is None or (type(n) is int and 0 <= n <= TOP) for n in levels):
        return None
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        return None
    if not (math.isfinite(scale) and math.isfinite(offset) and scale > 0):
        return None
    return Quantization(scale, offset, str(entry.get("unit", ""))[:80], *levels)
