"""Inverse depth up to scale and shift, painted as a grey picture: near is bright, far is dark."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import visualization
from ..ensemble import affine
from ..metrics import DEPTH, disparity_aligned
from .depth import decode, scale_shift_invariant
from .depth import encode as encode_depth
from .losses import MEAN_LOSSES
from .pictures import distance, flip
from .task import Task


def encode(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Metres to a canvas: each image's 2 %-98 % quantiles of valid 1 / depth become [-1, 1], clipped (as Lotus has it).

    A depth of +inf (the sky) is painted as far as can be, as `depth` paints it.

    Args:
        depth: ``b 1 h w`` metres.
        valid: ``b 1 h w`` bool.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], three equal channels, 0 where unknown; mask ``b 1 h w`` of where it is known.
    """
    # -1 / depth rises with depth, so its canvas is the wanted one with the sign changed; the sky stays behind it all.
    rising = torch.where(torch.isposinf(depth), depth, -1 / depth)
    canvas, mask = encode_depth(rising, valid)
    return -canvas, mask


def encode_whole(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Metres to a canvas as GenPercept trained with: the whole range of 1 / depth becomes [-1, 1], nothing is clipped.

    One very near pixel darkens all the others. The far end is the farthest depth there is, valid or not: with
    pixels beyond the range of the data, the farthest valid one is above -1. The sky is as far as the farthest other.

    Args:
        depth: ``b 1 h w`` metres; of invalid pixels the numbers that were stored, 0 where there were none, +inf for
            the sky.
        valid: ``b 1 h w`` bool.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], three equal channels, -1 where unknown; the mask is ``valid``.
    """
    depth = with_near_sky(depth)
    inverse = 1 / depth
    far = torch.where(depth > 0, inverse, math.inf).flatten(1).amin(1).reshape(-1, 1, 1, 1)
    near = torch.where(valid, inverse, 0).flatten(1).amax(1).reshape(-1, 1, 1, 1)
    scaled = (inverse - far) / (near - far).clamp(min=1e-6) * 2 - 1
    return torch.where(valid, scaled.clamp(-1, 1), -1).expand(-1, 3, -1, -1).contiguous(), valid


def with_near_sky(depth: Tensor) -> Tensor:
    """``b 1 h w`` metres with the farthest finite depth of each image in place of +inf, as GenPercept's data has it."""
    sky = torch.isposinf(depth)
    return torch.where(sky, torch.where(sky, 0, depth).amax((1, 2, 3), keepdim=True), depth)


def align(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One image's map (``1 h w``) in metres, as depth metrics want it: fitted to 1 / target, inverted, above 1 mm.

    The fit leaves out predictions of 0, as published, unless there are no others.
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
    source="depth",
)
