"""Conversion of masks (0 or 1) and shares (0 to 1: mattes, trimaps, boundaries) from and to stored levels.

Masks of 0 and 255, of 1, 2 or 4 bits, booleans, and floats from 0 to 1 are unambiguous and are converted. An 8-bit mask
of 0 and 1 is ambiguous (faint, or without the factor 255) and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .levels import DEFAULT_THRESHOLD, JPEG_ERROR, Levels, matches, value_list

# Full scale of 8-bit levels.
_BYTE = 255.0
# A share whose maximum is below this has a wrong scale.
_FAINT = {"trimap": 0.25}
_FAINT_ANY = 0.02
# Up to this many distinct faint levels beside a full one are ids; more are soft edges.
_FEW = 32


def decode_mask(levels: Levels, how: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Levels ``1 h w`` to 0 or 1, and the valid mask; with ``soft``, to [0, 1].

    Raises:
        ValueError: whether a level is foreground is ambiguous.
    """
    raw = levels.values
    valid = ~matches(raw, how.get("ignore")) & ~matches(raw, how.get("invalid")) & ~raw.isnan()
    found = raw[valid]
    if not found.numel():
        return torch.zeros_like(raw), valid
    if how.get("soft"):
        top = levels.top if levels.bits or float(found.max()) <= 1 else _BYTE
        return (raw / top).clamp(0, 1), valid
    threshold = _threshold(found, levels, how.get("threshold"))
    return ((raw > threshold) & valid).float(), valid


def _threshold(found: Tensor, levels: Levels, stated: float | None) -> float:
    """The level above which a mask is foreground, in stored units."""
    low, high = float(found.min()), float(found.max())
    if low < 0:
        raise ValueError(
            f"it has {value_list(found)}; a mask has 0 and 255 (or 0 and 1 as floats). Save it with these"
        )
    if levels.bits == 0 and high <= 1:
        threshold, top = (stated if stated is not None and stated < 1 else 0.5), 1.0
        if 0 < high <= 1 / _BYTE + 1e-6:
            raise _ambiguous(found, threshold, levels, "background")
        return threshold
    if 0 < levels.bits < 8:
        threshold, top = (
            (stated if stated is not None and stated < levels.top else levels.top / 2),
            levels.top,
        )
    elif high <= _BYTE:
        threshold, top = (DEFAULT_THRESHOLD if stated is None else stated), _BYTE
    else:
        threshold, top = _wide_threshold(found, high, levels, stated)
    _refuse_ambiguous(found, threshold, top, levels)
    return threshold


def _wide_threshold(found: Tensor, high: float, levels: Levels, stated: float | None) -> tuple[float, float]:
    """Threshold and full scale of numbers above 255."""
    if high > 65535 and stated is None:
        raise ValueError(
            f'it has {value_list(found)}; a mask has 0 and 255. Save it with these, or set "threshold"'
        )
    if stated is not None and stated <= _BYTE and len(found.unique()) > 2:
        raise ValueError(
            f"it has {value_list(found)}, and its threshold {stated:g} is for 8 bits; save it with 0 and 255, or set "
            '"threshold" to 32768 in its descriptor'
        )
    return (32768.0 if stated is None else stated), max(65535.0, levels.top if levels.bits == 16 else high)


def _refuse_ambiguous(found: Tensor, threshold: float, top: float, levels: Levels) -> None:
    """ValueError when a mask is all background or all foreground only because of its storage."""
    error = JPEG_ERROR if levels.lossy else 0
    low, high = float(found.min()), float(found.max())
    if error < high <= threshold:
        raise _ambiguous(found, threshold, levels, "background")
    if threshold < top / 4:
        return  # the descriptor defines everything above 0 as foreground
    if threshold < low < top - error:
        raise _ambiguous(found, threshold, levels, "foreground")
    faint = found[(found > 0) & (found < top / 4)]
    between = bool(((found >= top / 4) & (found <= threshold)).any())
    more = len(faint) > int((found > threshold).sum())
    if not error and more and not between and len(faint.unique()) <= _FEW:
        raise ValueError(
            f"it has {value_list(found)}, with more pixels of low values than above {threshold:g}: are these ids? "
            'Save it with 0 and 255, or set "threshold" and "ignore" in its descriptor'
        )


def _ambiguous(found: Tensor, threshold: float, levels: Levels, side: str) -> ValueError:
    kind = f"in {levels.bits} bits" if levels.bits else "as floats"
    where = "at or below" if side == "background" else "above"
    hint = ""
    if side == "background":
        hint = (
            ', or set "threshold": 0 in its descriptor in dataset.json if all values above 0 are foreground'
        )
    return ValueError(
        f"it has {value_list(found)} {kind}, all {where} the threshold {threshold:g}: all {side}. A mask has 0 and "
        f"{2**levels.bits - 1 if 0 < levels.bits <= 16 else 255}; save it with these{hint}"
    )


def encode_mask(mask: Tensor, valid: Tensor, top: float, ignored: float) -> Tensor:
    """0 or 1 (values between are rounded) to 0 and ``top``; invalid pixels to ``ignored``.

    Raises:
        ValueError: a valid value outside of 0 to 1.
    """
    _check_share("mask", mask[valid], "divide it by its largest value")
    return torch.where(valid, (mask > 0.5) * top, ignored)


def decode_share(name: str, levels: Levels, how: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Levels ``1 h w`` to a share in [0, 1], and the valid mask.

    Raises:
        ValueError: values outside [0, 1], or a maximum so low that the scale is wrong.
    """
    scale = _share_scale(levels, how.get("scale"))
    value = levels.values * scale + float(how.get("offset", 0.0))
    valid = value.isfinite().all(0, keepdim=True) & ~matches(levels.values, how.get("invalid"))
    found = value[valid]
    if found.numel():
        stored = value_list(levels.values[valid])
        _check_share(name, found, f"it has {stored} in the file; set its 'scale' (1/255 of 8 bits)")
        high = float(found.max())
        if not levels.lossy and 0 < high < _FAINT.get(name, _FAINT_ANY):
            raise ValueError(
                f"it has {stored}, so the {name} is at most {high:.3g}; a {name} reaches 1. Save it with its full "
                "range, or set its 'scale' in dataset.json"
            )
    return torch.where(valid, value, 0.0), valid


def _share_scale(levels: Levels, stated: float | None) -> float:
    """The factor from stored levels to shares."""
    if stated is None:
        return 1 / levels.top if levels.raster and levels.bits else 1.0
    eight_bit = math.isclose(stated, 1 / _BYTE, rel_tol=1e-3)
    return 1 / levels.top if eight_bit and 0 < levels.bits < 8 else float(stated)


def check_share(name: str, value: Tensor, valid: Tensor) -> None:
    """ValueError unless the valid values of a share to be written are in [0, 1]."""
    _check_share(name, value[valid], "scale it to that range")


def _check_share(name: str, found: Tensor, remedy: str) -> None:
    if found.numel() and not bool(((found >= -1e-3) & (found <= 1 + 1e-3)).all()):
        low, high = float(found.min()), float(found.max())
        raise ValueError(f"{name} goes from {low:g} to {high:g}, not 0 to 1; {remedy}")
