"""From the channels, palette and opacity of a stored label to the levels that its target is decoded from.

What cannot be wrong is converted: grey stored as RGB, opaque alpha, a palette of greys (masks and mattes), the
indices of a palette (ids). Everything else is refused, with what was found and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twofold.image.raster_format import RasterFormat
from twofold.sample import UNITS

IDS = ("semantic", "instance", "parts")
SHARES = ("matting", "trimap", "edge")
# JPEG moves the levels of grey and the equal channels of grey RGB by a few steps.
JPEG_ERROR = 16
DEFAULT_THRESHOLD = 128.0
_CODEC_BITS = {"png8": 8, "jpg8": 8, "png16": 16}


@dataclass(frozen=True)
class Levels:
    """Stored numbers of a target and their scale.

    Attributes:
        values: ``c h w`` float32, as stored.
        bits: of a stored number; 0 for floats.
        raster: whether they come from a picture file, whose largest level stands for 1.
        lossy: whether they are near what was stored (JPEG).
    """

    values: Tensor
    bits: int
    raster: bool = False
    lossy: bool = False

    @property
    def top(self) -> float:
        """The largest level: ``2**bits - 1``, 1 for floats."""
        return float(2**self.bits - 1) if self.bits else 1.0


def read_levels(name: str, raw: Tensor, how: Mapping[str, Any], stored: RasterFormat | None) -> Levels:
    """The levels of target ``name`` from a stored map.

    Args:
        name: of the target.
        raw: ``c h w``, as `image.read_map` gives it.
        how: its descriptor; ``channel`` selects one channel of several.
        stored: format of the file; None where only the codec is known.

    Raises:
        ValueError: which channel, or which number of a palette, is meant cannot be known.
    """
    if stored is None:
        codec = str(how.get("codec", ""))
        bits = _CODEC_BITS.get(codec, 0 if codec else 8)
        stored = RasterFormat(bits, raster=codec in _CODEC_BITS, lossy=codec == "jpg8")
    values, bits = raw, stored.bits
    if "channel" in how:
        values = _channel(raw, int(how["channel"]))
    elif name in UNITS:
        values, bits = _colours(name, raw, how, stored)
    return Levels(values, bits, stored.raster, stored.lossy)


def validity_levels(raw: Tensor, stored: RasterFormat) -> Tensor:
    """The one channel of a mask that says where another target holds; levels and indices as stored.

    Raises:
        ValueError: its channels differ, or its alpha is not opaque.
    """
    if stored.palette is not None:
        return raw
    return _grey("mask", _without_alpha("mask", raw, stored) if stored.alpha else raw, stored)


def matches(raw: Tensor, values: Any) -> Tensor:
    """Where a pixel of ``c h w`` holds one of the stored ``values``: bool ``1 h w``.

    NaN and infinity in any channel, a number in all of them, a list of numbers channel by channel.
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
            f"{list(color)} has {len(color)} channels, the map {raw.shape[0]}; mend the descriptor"
        )
    wanted = raw.new_tensor([float(v) for v in color])[:, None, None]
    return (raw == wanted).all(0, keepdim=True)


def value_list(values: Tensor) -> str:
    """Stored numbers in words: each of them up to six, else their ends."""
    found = values.unique().tolist()
    if len(found) > 6:
        return f"values from {found[0]:g} to {found[-1]:g}"
    head = ", ".join(f"{v:g}" for v in found[:-1])
    return f"values {head} and {found[-1]:g}" if head else f"the value {found[0]:g} everywhere"


def _channel(raw: Tensor, channel: int) -> Tensor:
    if not 0 <= channel < raw.shape[0]:
        raise ValueError(
            f"the descriptor's 'channel' is {channel}, the file has {raw.shape[0]} channels, counted from 0"
        )
    return raw[channel : channel + 1]


def _colours(name: str, raw: Tensor, how: Mapping[str, Any], stored: RasterFormat) -> tuple[Tensor, int]:
    """The levels of a known target, ``c h w``, and their bits."""
    if stored.palette is not None:
        return _from_palette(name, raw, how, torch.from_numpy(stored.palette))
    if name == "depth" and stored.raster and 0 < stored.bits < 8:
        raise ValueError(f"a depth of {stored.bits} bits is no measurement; is it a preview?")
    if stored.alpha:
        raw = _without_alpha(name, raw, stored)
    if name == "mask" or name in SHARES:
        _refuse_transparent(name, raw, stored)
    grey = name == "mask" or name in SHARES or (name in IDS and "palette" not in how)
    return (_grey(name, raw, stored) if grey else raw), stored.bits


def _without_alpha(name: str, raw: Tensor, stored: RasterFormat) -> Tensor:
    opacity = raw[-1]
    if float(opacity.min()) < 2**stored.bits - 1:
        last = raw.shape[0] - 1
        raise ValueError(
            f"its alpha channel is not opaque ({value_list(opacity)}), and whether it or the colour holds the {name} "
            f'is unknown; save it without alpha, or set "channel" to {last} (alpha) or 0 in its descriptor'
        )
    return raw[:-1]


def _refuse_transparent(name: str, raw: Tensor, stored: RasterFormat) -> None:
    key = stored.transparent
    if key and len(key) == raw.shape[0] and bool(matches(raw, [list(key)]).any()):
        raise ValueError(
            f"the PNG declares {list(key)} transparent, which a {name} does not have; save it as grey without "
            "transparency"
        )


def _grey(name: str, raw: Tensor, stored: RasterFormat) -> Tensor:
    """One channel of equal ones."""
    if raw.shape[0] == 1:
        return raw
    spread = raw.amax(0) - raw.amin(0)
    if float(spread.max()) <= (JPEG_ERROR if stored.lossy else 0):
        return raw[:1]
    place = int(spread.flatten().argmax())
    pixel = [f"{v:g}" for v in raw.flatten(1)[:, place].tolist()]
    way_out = (
        "name each id's colour in the descriptor's 'palette'"
        if name in IDS
        else 'set "channel" in its descriptor to the one that holds it'
    )
    raise ValueError(
        f"it has {raw.shape[0]} channels that differ, such as ({', '.join(pixel)}); a {name} label has 1 channel. Save "
        f"it as grey, or {way_out}"
    )


def _from_palette(name: str, raw: Tensor, how: Mapping[str, Any], colors: Tensor) -> tuple[Tensor, int]:
    """The indices (ids; masks with a threshold of their own), the colours, or the greys of a palette."""
    index = raw[:1].long().clamp(max=len(colors) - 1)
    if name in IDS:
        return (colors[index[0], :3].movedim(-1, 0).float(), 8) if "palette" in how else (raw, 8)
    used = colors[index.unique()].long()
    opaque = bool((used[:, 3] == 255).all())
    if UNITS[name].channels == 3 and name != "normals" and opaque:
        return colors[index[0], :3].movedim(-1, 0).float(), 8
    if name == "mask" and float(how.get("threshold", DEFAULT_THRESHOLD)) != DEFAULT_THRESHOLD:
        return raw, 8
    grey = bool((used[:, 0] == used[:, 1]).all()) and bool((used[:, 1] == used[:, 2]).all())
    if (name == "mask" or name in SHARES) and grey and opaque:
        return colors[index[0], 0][None].float(), 8
    shown = ", ".join(str(tuple(c[:3])) for c in used[:3].tolist())
    how_to = '; a "threshold" of 0 in its descriptor takes every index above 0' if name == "mask" else ""
    raise ValueError(
        f"it is stored by a palette (indices: {value_list(raw)}; colours {shown}), and {name} is levels of grey; "
        f"save it without a palette{how_to}"
    )
