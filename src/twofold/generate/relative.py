"""Affine-invariant depth, stored as the target ``depth``.

A predicted map d in [0, 1] is known up to scale and shift, in the space of its task. It is stored in arbitrary units
whose value in that space is ``1 + d`` (d itself in ``log_depth``): ``1 + d``, ``1 / (1 + d)``, ``1 / (1 + d)^2`` or
``e^d``. Every task of that space removes scale and shift, by the 2 % and 98 % quantiles, before training, so its
training target is d. The descriptor of such a target has ``"relative": "<space>"``. Tasks of another space cannot train
on it (`can_train_on`), and metrics in metres cannot be computed from it. Depth of a task in metres (``Task.metres``) is
stored in metres, and such a task trains on no other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.folder import Folder
from ..predict.prediction import SPACES
from ..targets import target_spec
from ..tasks import Task

KEY = "relative"


def to_depth(map: Tensor, space: str) -> Tensor:
    """A map in [0, 1] in ``space`` to stored depth ``* 1 h w`` above 0, in arbitrary units.

    Raises:
        ValueError: not a space of distances.
    """
    d = map.float().clamp(0, 1)
    match space:
        case "depth":
            return 1 + d
        case "disparity":
            return 1 / (1 + d)
        case "sqrt_disparity":
            return 1 / (1 + d).square()
        case "log_depth":
            return torch.exp(d)
    raise ValueError(f"{space!r} is not a space of distances; use one of {', '.join(SPACES)}")


def from_depth(depth: Tensor, space: str) -> Tensor:
    """The inverse of `to_depth`, up to the rounding of float32; undefined where depth is 0 (invalid)."""
    match space:
        case "depth":
            return depth - 1
        case "disparity":
            return 1 / depth - 1
        case "sqrt_disparity":
            return depth.rsqrt() - 1
        case "log_depth":
            return depth.log()
    raise ValueError(f"{space!r} is not a space of distances; use one of {', '.join(SPACES)}")


def relative_space(folder: Folder, index: int) -> str:
    """The space of a row's affine-invariant depth; empty where depth is in metres, or missing."""
    row = folder.rows[index]
    if "depth" not in (row.get("targets") or {}):
        return ""
    return str(folder.descriptor(row, "depth").get(KEY, ""))


def can_train_on(task: Task, folder: Folder, index: int) -> bool:
    """Whether the space of a row's depth is one that ``task`` can train on."""
    space = relative_space(folder, index) if target_spec(task.target).is_distance else ""
    return space == "" or (space == task.space and not task.metres)
