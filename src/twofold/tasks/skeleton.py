"""People as pictures of their joints and limbs: any number of them, in one look, through any head.

Right joints and limbs have the colours of left ones with red and blue exchanged, and those of the middle as much red as
blue. So a mirror image, in which left is right, is made of the picture alone: exchange red and blue.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..metrics import peaks
from ..targets import TARGETS
from ..targets.people import JOINTS, draw
from .pictures import encode as encode_picture
from .pictures import picture_task
from .task import Task


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """A picture ``b 3 h w`` as any other; heatmaps of one person ``b 17 h w`` are drawn first."""
    if target.shape[1] == len(JOINTS):
        found = peaks(target)
        labelled = target.flatten(2).amax(-1) > 0
        size = (int(target.shape[-2]), int(target.shape[-1]))
        drawn = [draw(p[None, :, :2], k[None], size) for p, k in zip(found, labelled, strict=True)]
        target = torch.stack(drawn).to(target)
    return encode_picture(target, valid)


skeleton: Task = replace(
    picture_task(
        name="skeleton", prompt="skeletons of people", unit="colours of joints and limbs, sRGB", space="srgb"
    ),
    encode=encode,
    flip=TARGETS["skeleton"].flip,
)
