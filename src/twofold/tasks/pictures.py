"""What tasks share whose numbers are in [0, 1]: masks, colours, intrinsic images. The scale of the canvas is fixed.

Not each image's own smallest and largest number, as GenPercept has it: that would make a colour depend on the others
of its picture, and a picture without foreground all noise.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .. import visualization
from ..ensemble import median
from ..metrics import IMAGE_QUALITY
from .losses import gradient, l1, mse
from .task import Task

# Interpolation and half floats may leave [0, 1] by so much.
SLACK = 1e-3


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers in [0, 1] to a canvas: 2 x - 1.

    Args:
        target: ``b 1 h w`` or ``b 3 h w`` in [0, 1].
        valid: ``b 1 h w`` bool.

    Returns:
        Canvas ``b 3 h w`` in [-1, 1], one channel as three equal ones, 0 where unknown; the mask is ``valid``.

    Raises:
        ValueError: a number that is valid and not in [0, 1].
    """
    known = torch.where(valid, target, 0.5)
    low, high = float(known.min()), float(known.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(
            f"this target goes from {low:g} to {high:g}, and has to be in [0, 1]; set 'scale' where it is described"
        )
    return (known * 2 - 1).clamp(-1, 1).expand(-1, 3, -1, -1).contiguous(), valid


def decode(canvas: Tensor) -> Tensor:
    """Canvas ``b 3 h w`` to three channels in [0, 1]."""
    return (canvas.float().clamp(-1, 1) + 1) / 2


def decode_grey(canvas: Tensor) -> Tensor:
    """Canvas ``b 3 h w`` to one channel in [0, 1], the mean of the three."""
    return (canvas.float().mean(1, keepdim=True).clamp(-1, 1) + 1) / 2


def flip(x: Tensor) -> Tensor:
    """The mirror image: columns reversed."""
    return x.flip(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Absolute difference of ``*b c h w``, a mean over channels: ``*b 1 h w`` in [0, 1]."""
    return (a - b).abs().mean(-3, keepdim=True)


def unaligned(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The prediction: its scale is known."""
    return prediction


def picture_task(name: str, prompt: str, unit: str, space: str) -> Task:
    """A task whose map is a picture ``3 h w`` in [0, 1]; ``space`` ``linear`` is light, drawn as sRGB for eyes."""
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
        show=partial(visualization.color_picture, linear=space == "linear"),
        align=unaligned,
        metrics=(IMAGE_QUALITY["mse"], IMAGE_QUALITY["psnr"]),
    )
