"""Tasks whose values are in [0, 1]: masks, colours, intrinsic images. The scale of the encoding is fixed.

It is not each image's own minimum and maximum, as in GenPercept: that would make a colour depend on the others of its
image, and amplify the noise of an image without foreground.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .. import visualization
from ..metrics import IMAGE_QUALITY
from .ensemble import median
from .losses import gradient, l1, mse
from .task import Task

# Interpolation and half floats may exceed [0, 1] by this.
SLACK = 1e-3


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode values in [0, 1]: 2 x - 1.

    Args:
        target: ``b 1 h w`` or ``b 3 h w`` in [0, 1].
        valid: ``b 1 h w`` bool.

    Returns:
        ``b 3 h w`` in [-1, 1], one channel as three equal ones, 0 where invalid; the mask is ``valid``.

    Raises:
        ValueError: a valid value outside [0, 1].
    """
    known = torch.where(valid, target, 0.5)
    low, high = float(known.min()), float(known.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(
            f"this target goes from {low:g} to {high:g}; expected [0, 1]. Set 'scale' in its descriptor"
        )
    return (known * 2 - 1).clamp(-1, 1).expand(-1, 3, -1, -1).contiguous(), valid


def decode(encoded: Tensor) -> Tensor:
    """An encoded map ``b 3 h w`` to three channels in [0, 1]."""
    return (encoded.float().clamp(-1, 1) + 1) / 2


def decode_grey(encoded: Tensor) -> Tensor:
    """An encoded map ``b 3 h w`` to one channel in [0, 1], the mean of the three."""
    return (encoded.float().mean(1, keepdim=True).clamp(-1, 1) + 1) / 2


def flip(x: Tensor) -> Tensor:
    """The map of the mirrored image: columns reversed."""
    return x.flip(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Absolute difference of ``*b c h w``, a mean over channels: ``*b 1 h w`` in [0, 1]."""
    return (a - b).abs().mean(-3, keepdim=True)


def unaligned(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The prediction: its scale is known."""
    return prediction


def image_task(name: str, prompt: str, unit: str, space: str) -> Task:
    """A task whose map is an image ``3 h w`` in [0, 1]; the ``space`` ``linear`` is shown as sRGB."""
    return Task(
        name=name,
        channels=3,
        unit=unit,
        space=space,
        frame=None,
        prompt=prompt,
        encode=encode,
        decode=decode,
        losses={"mse": mse, "l1": l1, "gradient": gradient},
        weights={"mse": 1.0},
        flip=flip,
        distance=distance,
        merge=median,
        show=partial(visualization.color_image, linear=space == "linear"),
        align=unaligned,
        metrics=(IMAGE_QUALITY["mse"], IMAGE_QUALITY["psnr"]),
    )
