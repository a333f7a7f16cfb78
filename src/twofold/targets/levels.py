"""Selection of the levels that a target is decoded from: channels, palette and alpha of a stored label.

Unambiguous cases are converted: grey stored as RGB, opaque alpha, a palette of greys (masks and mattes), the
indices of a palette (ids). Other cases raise an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..image.raster_format import RasterFormat

# Tolerance for JPEG: it changes grey levels, and equal channels of grey RGB, by a few steps.
JPEG_ERROR = 16
DEFAULT_THRESHOLD = 128.0
_CODEC_BITS = {"png8": 8, "jpg8": 8, "png16": 16}
# The largest level of codecs that store whole numbers.
CODEC_TOP = {"png8": 255, "jpg8": 255, "png16": 65535}
# Codecs of integers, which need a scale for metres or vectors.
WHOLE_CODECS = (*CODEC_TOP, "png")


@dataclass(frozen=True)
class Levels:
    """Stored values of a target and their format.

    Attributes:
        values: ``c h w`` float32, unscaled.
        bits: bits of a stored value; 0 for floats.
        raster: whether they come from an image file, whose full scale is ``2**bits - 1``.
        lossy: whether they are approximate (JPEG).
    """

    values: Tensor
    bits: int
    raster: bool = False
    lossy: bool = False

    @property
    def top(self) -> float:
        """The largest level: ``2**bits - 1``, 1 for floats."""
        return float(2**self.bits - 1) if self.bits else 1.0


def format_of(how: Mapping[str, Any]) -> RasterFormat:
    """The file format that a descriptor's codec implies."""
    codec = str(how.get("codec", ""))
    bits = _CODEC_BITS.get(codec, 0 if codec else 8)
    return RasterFormat(bits, raster=codec in _CODEC_BITS, lossy=codec == "jpg8")


def validity_levels(raw: Tensor, stored: RasterFormat) -> Tensor:
    """The one channel of a validity mask; levels and indices as stored.

    Raises:
        ValueError: its channels differ, or its alpha is not opaque.
    """
    if stored.palette is not None:
        return raw
    return grey("mask", without_alpha("mask", raw, stored) if stored.alpha else raw, stored)


def matches(raw: Tensor, values: Any) -> Tensor:
    """Where a pixel of ``c h w`` has one of the stored ``values``: bool ``1 h w``.

    NaN and infinity match in any channel, a number in all channels, a list of numbers channel by channel.
    """
    found = torch.zeros_like(raw[:1], dtype=torch.bool)
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, list | tuple):
            found |= _is_color(raw, value)
        elif value in ("zero", "zero_pixel"):
            found |= raw.abs().amax(0, keepdim=True) == 0
        elif value is not None:
            # float() reads "nan" and "inf" too.
            number = float(value)
            if math.isfinite(number):
                found |= (raw == number).all(0, keepdim=True)
            else:
                found |= (raw.isnan() if math.isnan(number) else raw == number).any(0, keepdim=True)
    return found


def _is_color(raw: Tensor, color: Any) -> Tensor:
    """Where the channels of c h w are those of `color`: bool 1 h w."""
    if len(color) != raw.shape[0]:
        raise ValueError(
            f"{list(color)} has {len(color)} channels, the map {raw.shape[0]}; fix the descriptor"
        )
    expected = raw.new_tensor([float(v) for v in color])[:, None, None]
    return (raw == expected).all(0, keepdim=True)


def value_list(values: Tensor) -> str:
    """Stored values as text: all of up to six distinct ones, else their range."""
    found = values.unique().tolist()
    if len(found) > 6:
        return f"values from {found[0]:g} to {found[-1]:g}"
    head = ", ".join(f"{v:g}" for v in found[:-1])
    return f"values {head} and {found[-1]:g}" if head else f"the value {found[0]:g} everywhere"


def channel(raw: Tensor, number: int) -> Tensor:
    """One channel of a stored map, ``1 h w``; ValueError when there is none of that number."""
    if not 0 <= number < raw.shape[0]:
        raise ValueError(
            f"the descriptor's 'channel' is {number}; the file has the channels 0 to {raw.shape[0] - 1}"
        )
    return raw[number : number + 1]


def without_alpha(name: str, raw: Tensor, stored: RasterFormat) -> Tensor:
    """The channels before an alpha channel; ValueError when that is not opaque."""
    opacity = raw[-1]
    if float(opacity.min()) < 2**stored.bits - 1:
        last = raw.shape[0] - 1
        raise ValueError(
            f"its alpha channel is not opaque ({value_list(opacity)}), and whether alpha or colour holds the {name} "
            f'is unknown; save it without alpha, or set "channel" to {last} (alpha) or 0 in its descriptor'
        )
    return raw[:-1]


def refuse_transparent(name: str, raw: Tensor, stored: RasterFormat) -> None:
    """ValueError when a pixel has the colour that its PNG declares transparent."""
    key = stored.transparent
    if key and len(key) == raw.shape[0] and bool(matches(raw, [list(key)]).any()):
        raise ValueError(
            f"the PNG declares {list(key)} transparent; a {name} label has no transparency. Save it as grey without it"
        )


def grey(name: str, raw: Tensor, stored: RasterFormat, remedy: str = "") -> Tensor:
    """One of several equal channels; ValueError with ``remedy`` when they differ."""
    if raw.shape[0] == 1:
        return raw
    spread = raw.amax(0) - raw.amin(0)
    if float(spread.max()) <= (JPEG_ERROR if stored.lossy else 0):
        return raw[:1]
    place = int(spread.flatten().argmax())
    pixel = [f"{v:g}" for v in raw.flatten(1)[:, place].tolist()]
    remedy = remedy or 'set "channel" in its descriptor to the one that holds it'
    raise ValueError(
        f"it has {raw.shape[0]} channels that differ, such as ({', '.join(pixel)}); a {name} label has 1 channel. Save "
        f"it as grey, or {remedy}"
    )


def palette_colors(raw: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
    """The indices ``h w`` of a palette file, and the ``colors`` (n 4, RGBA) that it uses."""
    index = raw[:1].long().clamp(max=len(colors) - 1)
    return index[0], colors[index.unique()].long()


def is_opaque(colors: Tensor) -> bool:
    """Whether colours ``n 4`` (RGBA) are opaque."""
    return bool((colors[:, 3] == 255).all())


def palette_error(name: str, raw: Tensor, colors: Tensor) -> ValueError:
    """The error for a palette file whose colours do not determine the target."""
    _, used = palette_colors(raw, colors)
    listed = ", ".join(str(tuple(c[:3])) for c in used[:3].tolist())
    return ValueError(
        f"it is a palette file (indices: {value_list(raw)}; colours {listed}), and {name} needs levels of grey; "
        "save it without a palette"
    )


def ignored(valid: Tensor, how: Mapping[str, Any]) -> float:
    """The stored value of invalid pixels; ValueError when one is needed and the descriptor has none."""
    ignore = how.get("ignore", [])
    first = next(iter(ignore if isinstance(ignore, list | tuple) else [ignore]), None)
    if first is None and not bool(valid.all()):
        raise ValueError("this map has invalid pixels, and its codec has no value for them; set 'ignore'")
    return float(first or 0)
