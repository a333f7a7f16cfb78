"""Maps of real numbers in 16-bit grey PNG, with a scale that is chosen per map and stored in the file."""

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
# Metres per level; the first that fits is used: up to 65, 655 and 6553 m.
METRE_SCALES = (0.001, 0.01, 0.1)
# Larger distances (the inverse of disparities near 0) are stored as infinite.
_FAR = 1e5
_SLACK = 1e-3
# Pixels that are processed together.
_PART = 2**18


@dataclass(frozen=True)
class Quantization:
    """Scale of 16-bit levels: value = ``scale * level + offset``, in ``unit``.

    Attributes:
        scale, offset: see above.
        unit: unit of the values, as text.
        unknown: level that stands for NaN; None if there is none.
        infinite: level that stands for infinity; None if there is none.
    """

    scale: float
    offset: float = 0.0
    unit: str = ""
    unknown: int | None = None
    infinite: int | None = None

    def encode(self, x: Tensor) -> Tensor:
        """Values to levels 0 to 65535, float32."""
        first, last = (1, TOP - 1) if self.unknown is not None else (0, TOP)
        levels = ((x.double() - self.offset) / self.scale).round()
        levels = levels.nan_to_num(nan=0.0, posinf=last, neginf=first).clamp(first, last)
        if self.infinite is not None:
            levels = torch.where(x >= _FAR, float(self.infinite), levels)
        if self.unknown is not None:
            levels = torch.where(x.isnan(), float(self.unknown), levels)
        return levels.float()

    def decode(self, levels: Tensor) -> Tensor:
        """Levels to values, float32; NaN and infinity for the levels ``unknown`` and ``infinite``."""
        x = (levels.double() * self.scale + self.offset).float()
        if self.unknown is not None:
            x = torch.where(levels == self.unknown, math.nan, x)
        return x if self.infinite is None else torch.where(levels == self.infinite, math.inf, x)


def metre_quantization(metres: Tensor) -> Quantization | None:
    """Millimetres per level if all finite distances fit into 16 bits, else centimetres, else decimetres, else None.

    The error is at most half a level: 0.5 mm up to 65.534 m.
    """
    ends = finite_range(metres, _FAR)
    most = ends[1] if ends else 0.0
    scale = next((s for s in METRE_SCALES if most <= (TOP - 1) * s), None)
    return None if scale is None else Quantization(scale, 0.0, "m", 0, TOP)


def range_quantization(x: Tensor, unit: str) -> Quantization:
    """Levels 1 to 65534 over the finite range of a map."""
    low, high = finite_range(x) or (0.0, 1.0)
    scale = (high - low) / (TOP - 2) or 1.0
    return Quantization(scale, low - scale, unit, 0, None)


def finite_range(x: Tensor, below: float = math.inf) -> tuple[float, float] | None:
    """Minimum and maximum of a map's finite values under ``below``; None if there are none."""
    low, high = math.inf, -math.inf
    for part in x.reshape(-1).split(_PART):  # selecting from all at once takes 4 times the map's memory
        known = part[part.isfinite() & (part < below)]
        if known.numel():
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    return (low, high) if low <= high else None


def share_quantization(x: Tensor, unit: str) -> Quantization | None:
    """Levels 0 to 65535 for 0 to 1 if all values of a map are in that range, else None."""
    return Quantization(1 / TOP, 0.0, unit) if is_within(x, 0, 1) else None


def is_within(x: Tensor, least: float, most: float) -> bool:
    """Whether all values of a map are in this range, up to 1e-3; False for NaN."""
    low, high = (float(v) for v in torch.aminmax(x))
    return low >= least - _SLACK and high <= most + _SLACK


def write_quantized(path: str | os.PathLike[str], x: Tensor, how: Quantization) -> None:
    """Write a map ``1 h w`` to a 16-bit grey PNG, with the scale in a text chunk."""
    write_map(path, by_rows(how.encode, x), text={KEY: json.dumps(asdict(how))})


def read_quantized(path: str | os.PathLike[str]) -> tuple[Tensor, Quantization]:
    """Read a map ``1 h w`` in its unit that `write_quantized` wrote, and its quantization.

    Raises:
        ImageError: the file has no scale.
    """
    how = quantization_of(path)
    if how is None:
        raise ImageError(f"{path} has no scale of its levels; read it with read_map and scale it")
    return how.decode(read_map(path)), how


def quantization_of(path: str | os.PathLike[str]) -> Quantization | None:
    """The quantization stored in a PNG; None if it has none or the file is not a PNG."""
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
