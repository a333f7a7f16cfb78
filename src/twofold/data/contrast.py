"""Whether labels of two sides (masks, mattes, boundaries) show both, and whether ids differ.

A stored scale that is read wrongly makes every mask of a folder empty, or full, and every score perfect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from twofold.targets import target_spec

_EMPTY = 0.02


@dataclass(frozen=True)
class ValueRange:
    """The least and the largest valid value of one label; NaN where nothing is valid."""

    least: float
    most: float


def value_range(target: Tensor, valid: Tensor) -> ValueRange:
    """The extent of a target ``c h w`` where ``valid`` (bool ``1 h w``)."""
    values = target[valid.expand_as(target)]
    if not values.numel():
        return ValueRange(float("nan"), float("nan"))
    low, high = torch.aminmax(values)
    return ValueRange(float(low), float(high))


def constant_labels(name: str, found: Iterable[ValueRange]) -> str:
    """What is wrong when no label of a folder has contrast; empty where one has, or nothing is known of any.

    A mask or share is empty where all of it is below `_EMPTY`, full where all is above ``1 - _EMPTY``, and has contrast
    otherwise; ids have it where two values differ anywhere in the folder.
    """
    known = [e for e in found if e.least == e.least]
    spec = target_spec(name)
    if not known or not (spec.is_share or spec.is_ids):
        return ""
    if spec.is_share:
        empty, full = sum(e.most < _EMPTY for e in known), sum(e.least > 1 - _EMPTY for e in known)
        if empty + full < len(known):
            return ""
        stated = (
            f"of {len(known)} {name} labels {empty} are empty (0 everywhere) and {full} full (1 everywhere)"
        )
        return f"{stated}; none shows both. Check how they are stored: 'threshold' or 'scale', levels, which folder"
    low, high = min(e.least for e in known), max(e.most for e in known)
    if low != high:
        return ""
    stated = f"all {len(known)} {name} labels hold the id {low:g} and no other"
    return f"{stated}. Check how they are stored, and which folder"
