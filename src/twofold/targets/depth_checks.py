"""Checks of depths in metres: millimetres without a scale, planes that mean "no value", overflowed half floats.

They run whenever a depth is read: in training, evaluation and `validate`. A `valid_range` in the descriptor disables
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A median above this, in metres, means another unit.
_MEDIAN = 300.0
# If nearly all depths are below this, metres were scaled twice.
_NEAREST = 0.02
# Integer depths are plausible up to this; above, they are millimetres.
_WHOLE = 100.0
# Larger values are markers, not depths.
_FARTHEST = 1e6
# A far plane: the largest depth, on at least this share and number of pixels, this many times farther than all others,
# and at least this far.
_PLANE_SHARE, _PLANE_COUNT, _PLANE_RATIO, _PLANE_LEAST = 0.001, 4, 4.0, 100.0
# Round values that are markers at any ratio.
_ROUND = (1e3, 1e4, 1e5, 1e6)
# The largest half float is 65504; a map above this that holds infinity has overflowed.
_HALF = 32768.0
_SAMPLED = 65536


def depth_problem(z: Tensor, valid: Tensor, how: Mapping[str, Any], raw: np.ndarray) -> str:
    """A message if the values of a depth map in metres are implausible, else "".

    Args:
        z: ``1 h w`` metres.
        valid: bool ``1 h w``.
        how: its descriptor. With `valid_range` or `relative`, only an overflow is reported.
        raw: the stored array.
    """
    if raw.dtype == np.float16 and (problem := _half_problem(raw, how)):
        return problem
    if how.get("valid_range") or how.get("relative"):
        return ""
    found = z[valid]
    if not found.numel():
        return ""
    # Depths of the smallest disparities are far apart without being a plane.
    plane = "" if how.get("kind") == "disparity" else _plane_problem(found)
    return plane or _saturation_problem(raw, valid) or _unit_problem(found, how)


def _half_problem(raw: np.ndarray, how: Mapping[str, Any]) -> str:
    infinite = np.isinf(raw)
    if not infinite.any():
        return ""
    known = raw[np.isfinite(raw)]
    named = "inf" in map(str, _listed(how.get("infinite")) + _listed(how.get("invalid")))
    if known.size and float(known.max()) > _HALF:
        return (
            f"half floats up to {float(known.max()):g} and {int(infinite.sum())} infinite values: an overflow above "
            "65504. Save it as float32, or in metres"
        )
    if named:
        return ""
    return (
        f"{int(infinite.sum())} of its half floats are infinite: an overflow above 65504, or the sky. Save it as "
        'float32, or set "infinite": "inf" (sky) or "invalid": "inf" in its descriptor'
    )


def _plane_problem(found: Tensor) -> str:
    """A far plane that means "no value"."""
    top = float(found.max())
    at_top = found == top
    share, rest = float(at_top.float().mean()), found[~at_top]
    if top > _FARTHEST:
        return (
            f'{int((found > _FARTHEST).sum())} pixels are up to {top:g} m: a marker for "no value". Add it to '
            '"invalid" in its descriptor (to "infinite" if it is the sky)'
        )
    second = float(rest.max()) if rest.numel() else 0.0
    apart = rest.numel() and (top in _ROUND or top >= _PLANE_RATIO * second)
    if apart and top >= _PLANE_LEAST and _many(at_top):
        return (
            f'{share:.1%} of its pixels are exactly {top:g} m, all others at most {second:g} m: a far plane for "no '
            'value". Add its stored value to "invalid" in its descriptor (to "infinite" if it is the sky), or set '
            '"valid_range"'
        )
    return ""


def _saturation_problem(raw: np.ndarray, valid: Tensor) -> str:
    """The largest 16-bit value on many pixels: saturation, or a marker."""
    if raw.dtype != np.uint16 or raw.size != valid.numel():
        return ""
    marked = torch.from_numpy(raw == 65535).reshape(valid.shape)[valid]
    if not _many(marked):
        return ""
    share = float(marked.float().mean())
    return (
        f"{share:.1%} of its pixels are 65535, the largest 16-bit value: saturation, or a marker. Add 65535 to "
        '"invalid" in its descriptor (to "infinite" if it is the sky), or set "valid_range"'
    )


def _many(marked: Tensor) -> bool:
    """Whether enough pixels are marked to rule out coincidence."""
    return int(marked.sum()) >= max(_PLANE_COUNT, _PLANE_SHARE * marked.numel())


def _unit_problem(found: Tensor, how: Mapping[str, Any]) -> str:
    sampled = found.flatten()[:: max(1, found.numel() // _SAMPLED)]
    median, scale = float(sampled.median()), float(how.get("scale", 1.0))
    high = float(torch.quantile(sampled, 0.98))
    whole = bool((sampled == sampled.round()).all()) and len(sampled.unique()) > 1
    remedy = (
        f'Set "scale": {scale / 1000:g} in its descriptor for millimetres; if these are metres, set "valid_range": '
        "[0, the farthest]"
    )
    if median > _MEDIAN:
        return f"its median is {median:g} m, so its unit is not metres. {remedy}"
    if whole and high > _WHOLE:
        return (
            f"all values are whole numbers, up to {float(found.max()):g} m: these are millimetres. {remedy}"
        )
    if high < _NEAREST:
        return (
            f'98 % of it is nearer than {high:g} m, which is implausible. Is "scale": {scale:g} applied to metres? Set '
            'it to 1, or set "valid_range"'
        )
    return ""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
