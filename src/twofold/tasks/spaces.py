"""Distances in other spaces, up to scale and shift in each space: `sqrt_disparity` and `log_depth`.

Depth gives most of its range to distant surfaces, disparity to close ones; these two spaces lie in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .. import visualization
from ..geometry import align_affine
from ..metrics import DEPTH
from .depth import decode, encode as encode_depth, scale_shift_invariant
from .ensemble import affine
from .image_tasks import distance, flip
from .losses import MEAN_LOSSES
from .task import Task

Transform = Callable[[Tensor], Tensor]
# An aligned map is clamped to these depths in metres before it is inverted.
NEAREST, FARTHEST = 1e-3, 1e3


def encode(depth: Tensor, valid: Tensor, to_space: Transform, near: Literal[0, 1]) -> tuple[Tensor, Tensor]:
    """Encode metres: each image's 2 %-98 % quantiles of ``to_space`` of valid depth become [-1, 1], clipped.

    A depth of +inf (the sky) becomes the farthest value.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.
        to_space: metres to the values of the space, monotonic.
        near: 1 if these decrease with depth, else 0.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; the mask ``b 1 h w`` of known pixels.
    """
    sign = -1 if near else 1
    known = torch.where(valid, depth, 1.0)
    # Increasing with depth, so that one rule serves all spaces; the sky stays farthest.
    rising = torch.where(torch.isposinf(depth), depth, sign * to_space(known))
    encoded, mask = encode_depth(rising, valid)
    return sign * encoded, mask


def align(
    prediction: Tensor, target: Tensor, valid: Tensor, to_space: Transform, to_metres: Transform
) -> Tensor:
    """One image's map (``1 h w``) in metres, float64, for depth metrics.

    Scale and shift are fitted in the map's own space, to ``to_space(target)`` by least squares; then it is inverted and
    clamped to `NEAREST` and `FARTHEST`.

    Raises:
        ValueError: no pixel is valid.
    """
    scale, shift = align_affine(prediction, to_space(torch.where(valid, target, 1.0).double()), valid)
    ends = [float(to_space(torch.tensor(d, dtype=torch.float64))) for d in (NEAREST, FARTHEST)]
    return to_metres((prediction.double() * scale + shift).clamp(min(ends), max(ends)))


def distance_task(
    space: str, prompt: str, to_space: Transform, to_metres: Transform, near: Literal[0, 1]
) -> Task:
    """The task of distances in a space of `predict.prediction.SPACES`.

    Args:
        space: its name, which is also the task's.
        prompt: the default text condition.
        to_space: metres to the values of the space, monotonic.
        to_metres: the inverse.
        near: the value of a map at the nearest surfaces, 1 or 0.
    """
    return Task(
        name=space,
        channels=1,
        unit=f"{near} near to {1 - near} far, up to scale and shift",
        space=space,
        frame=None,
        prompt=prompt,
        encode=partial(encode, to_space=to_space, near=near),
        decode=decode,
        losses={**MEAN_LOSSES, "ssi": scale_shift_invariant},
        weights={"mse": 1.0, "ssi": 0.5, "gradient": 2.0},
        flip=flip,
        distance=distance,
        merge=affine,
        show=visualization.color_disparity if near else visualization.color_depth,
        align=partial(align, to_space=to_space, to_metres=to_metres),
        metrics=(DEPTH["abs_rel"], DEPTH["delta1"], DEPTH["rmse"]),
        target_key="depth",
    )
