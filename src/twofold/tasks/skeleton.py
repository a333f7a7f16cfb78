"""People as an image of their joints and limbs: any number of people, in one forward pass, with any head."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..metrics import peaks
from ..targets import TARGETS
from ..targets.people import JOINTS, draw
from .image_tasks import encode as encode_image, image_task
from .task import Task


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode an image ``b 3 h w`` as for any image task; heatmaps of one person ``b 17 h w`` are drawn first."""
    if target.shape[1] == len(JOINTS):
        found = peaks(target)
        labelled = target.flatten(2).amax(-1) > 0
        size = (int(target.shape[-2]), int(target.shape[-1]))
        images = [draw(p[None, :, :2], k[None], size) for p, k in zip(found, labelled, strict=True)]
        target = torch.stack(images).to(target)
    return encode_image(target, valid)


skeleton: Task = replace(
    image_task(
        name="skeleton", prompt="skeletons of people", unit="colours of joints and limbs, sRGB", space="srgb"
    ),
    encode=encode,
    flip=TARGETS["skeleton"].flip,
)
