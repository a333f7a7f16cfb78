"""Distances known up to scale and shift, kept where depth is kept.

A network's depth is no metres: of a map d in [0, 1] only the order and the ratios of differences mean something, and
only in the space it was painted in. It is stored as the target ``depth``, in made-up metres of which the space's own
function is ``1 + d`` (d itself in ``log_depth``): ``1 + d``, ``1 / (1 + d)``, ``1 / (1 + d)^2`` or ``e^d``.
Every task of that space takes off scale and shift, by its 2 % and 98 % quantiles, before it learns, so it learns d.
The descriptor of such a target says ``"relative": "<space>"``; no task of another space can learn from it, and no
metric in metres can be measured on it: `learnable` says so. Depth of a task in metres (``Task.metres``) is stored in
metres, and such a task learns from no other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.folder import Folder
from ..predict.prediction import SPACES
from ..tasks import Task

KEY = "relative"


def to_depth(map: Tensor, space: str) -> Tensor:
    """A map in [0, 1] in ``space`` to made-up metres ``* 1 h w`` above 0: see the top.

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
    raise ValueError(f"{space!r} is no space of distances; one of {', '.join(SPACES)}")


def from_depth(depth: Tensor, space: str) -> Tensor:
    """Back from `to_depth`, to float32's rounding; what is not valid (0) gives whatever it gives."""
    match space:
        case "depth":
            return depth - 1
        case "disparity":
            return 1 / depth - 1
        case "sqrt_disparity":
            return depth.rsqrt() - 1
        case "log_depth":
            return depth.log()
    raise ValueError(f"{space!r} is no space of distances; one of {', '.join(SPACES)}")


def relative_space(folder: Folder, index: int) -> str:
    """The space that a row's depth is known in up to scale and shift; empty where it is in metres, or there is none."""
    row = folder.rows[index]
    if "depth" not in (row.get("targets") or {}):
        return ""
    return str(folder.descriptor(row, "depth").get(KEY, ""))


def learnable(task: Task, folder: Folder, index: int) -> bool:
    """Whether ``task`` can learn from a row as far as spaces of depth go."""
    space = relative_space(folder, index) if task.target == "depth" else ""
    return space == "" or (space == task.space and not task.metres)
