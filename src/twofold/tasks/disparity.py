"""Inverse depth up to scale and shift, encoded as a grey image: near is 1, far is -1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import visualization
from ..metrics import DEPTH, disparity_aligned
from .depth import decode, encode as encode_depth, scale_shift_invariant
from .ensemble import affine
from .image_tasks import distance, flip
from .losses import MEAN_LOSSES
from .task import Task


def encode(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode metres: each image's 2 %-98 % quantiles of valid 1 / depth become [-1, 1], clipped (as in Lotus).

    A depth of +inf (the sky) becomes -1, the farthest value.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; the mask ``b 1 h w`` of known pixels.
    """
    # -1 / depth increases with depth, so its encoding is the result with the sign changed; the sky stays farthest.
    rising = torch.where(torch.isposinf(depth), depth, -1 / depth)
    encoded, mask = encode_depth(rising, valid)
    return -encoded, mask


def align(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One image's map (``1 h w``) in metres, for depth metrics: fitted to 1 / target, inverted, at least 1 mm.

    The fit excludes predictions of 0, as published, unless there are no others.
    """
    if not bool((prediction[valid] > 0).any()):
        prediction = prediction + 1
    return disparity_aligned(prediction, target, valid, (1e-3, math.inf))


disparity = Task(
    name="disparity",
    channels=1,
    unit="1 near to 0 far, up to scale and shift",
    space="disparity",
    frame=None,
    prompt="disparity map",
    encode=encode,
    decode=decode,
    losses={**MEAN_LOSSES, "ssi": scale_shift_invariant},
    weights={"mse": 1.0, "ssi": 0.5, "gradient": 2.0},
    flip=flip,
    distance=distance,
    merge=affine,
    show=visualization.color_disparity,
    align=align,
    metrics=(DEPTH["abs_rel"], DEPTH["delta1"], DEPTH["rmse"]),
    target_key="depth",
)
