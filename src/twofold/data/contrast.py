"""Detection of constant labels: masks that are all empty or full, and ids that never differ.

A wrong scale makes every mask of a folder empty or full, and every score perfect.
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
    """Minimum and maximum valid value of one label; NaN without a valid pixel."""

    least: float
    most: float


def value_range(target: Tensor, valid: Tensor) -> ValueRange:
    """Value range of a target ``c h w`` over its ``valid`` pixels (bool ``1 h w``)."""
    values = target[valid.expand_as(target)]
    if not values.numel():
        return ValueRange(float("nan"), float("nan"))
    low, high = torch.aminmax(values)
    return ValueRange(float(low), float(high))


def constant_labels(name: str, found: Iterable[ValueRange]) -> str:
    """A message if no label of a folder has contrast, else "" (also without any valid pixel).

    A mask or share is empty if all its values are below `_EMPTY`, full if all are above ``1 - _EMPTY``, and has
    contrast otherwise. Ids have contrast if two values differ anywhere in the folder.
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
        return f"{stated}; none has both. Check 'threshold' or 'scale', the stored levels, and the folder"
    low, high = min(e.least for e in known), max(e.most for e in known)
    if low != high:
        return ""
    stated = f"all {len(known)} {name} labels hold the id {low:g} and no other"
    return f"{stated}. Check the stored values and the folder"
