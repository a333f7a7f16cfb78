"""Distances in other spaces, each up to scale and shift of its own: what `sqrt_disparity` and `log_depth` share.

Depth gives far things most of the range and disparity near ones; both of these lie in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .. import visualization
from ..ensemble import affine
from ..geometry import align_affine
from ..metrics import DEPTH
from .depth import decode, scale_shift_invariant
from .depth import encode as encode_depth
from .losses import MEAN_LOSSES
from .pictures import distance, flip
from .task import Task

Paint = Callable[[Tensor], Tensor]
# An aligned map is held where depth is from a millimetre to a kilometre before it is inverted.
NEAREST, FARTHEST = 1e-3, 1e3


def encode(depth: Tensor, valid: Tensor, paint: Paint, near: Literal[0, 1]) -> tuple[Tensor, Tensor]:
    """Metres to a canvas: each image's 2 %-98 % quantiles of ``paint`` of valid depth become [-1, 1], clipped.

    A depth of +inf (the sky) is painted as far as can be, as `depth` paints it.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.
        paint: metres to the numbers of the space, monotonic.
        near: 1 where these are larger for near things, else 0.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; mask ``b 1 h w`` of where it is known.
    """
    sign = -1 if near else 1
    known = torch.where(valid, depth, 1.0)
    # Rising with depth, so that one rule serves all spaces; the sky stays behind everything.
    rising = torch.where(torch.isposinf(depth), depth, sign * paint(known))
    canvas, mask = encode_depth(rising, valid)
    return sign * canvas, mask


def align(prediction: Tensor, target: Tensor, valid: Tensor, paint: Paint, metres: Paint) -> Tensor:
    """One image's map (``1 h w``) in metres, float64, as depth metrics want it.

    Scale and shift are fitted in the map's own space, to ``paint(target)`` by least squares; then it is inverted, and
    is from `NEAREST` to `FARTHEST`.

    Raises:
        ValueError: no pixel is valid.
    """
    scale, shift = align_affine(prediction, paint(torch.where(valid, target, 1.0).double()), valid)
    ends = [float(paint(torch.tensor(d, dtype=torch.float64))) for d in (NEAREST, FARTHEST)]
    return metres((prediction.double() * scale + shift).clamp(min(ends), max(ends)))


def distance_task(space: str, prompt: str, paint: Paint, metres: Paint, near: Literal[0, 1]) -> Task:
    """The task of distances in a space of `prediction.SPACES`, which is also its name.

    Args:
        space: its name.
        prompt: that asks for it.
        paint: metres to the numbers of the space, monotonic.
        metres: back.
        near: what a map says of near things: 1, or 0.
    """
    return Task(
        name=space,
        channels=1,
        unit=f"{near} near to {1 - near} far, up to scale and shift",
        space=space,
        frame=None,
        prompt=prompt,
        encode=partial(encode, paint=paint, near=near),
        decode=decode,
        losses={**MEAN_LOSSES, "ssi": scale_shift_invariant},
        weights={"mse": 1.0, "ssi": 0.5, "gradient": 2.0},
        flip=flip,
        distance=distance,
        merge=affine,
        show=visualization.color_disparity if near else visualization.color_depth,
        align=partial(align, paint=paint, metres=metres),
        metrics=(DEPTH["abs_rel"], DEPTH["delta1"], DEPTH["rmse"]),
        source="depth",
    )
