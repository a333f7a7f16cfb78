"""The foreground of an image (dichotomous segmentation: Qin et al. 2022, DIS), and other masks."""

from __future__ import annotations

from .. import visualization
from ..metrics import MASKS
from .ensemble import median
from .image_tasks import decode_grey, distance, encode, flip, unaligned
from .losses import MEAN_LOSSES, balanced_binary_cross_entropy, binary_cross_entropy, soft_iou
from .task import Task


def mask_task(
    name: str, prompt: str, unit: str = "0 background to 1 foreground", target_key: str = ""
) -> Task:
    """A task of one foreground probability per pixel.

    Args:
        name: of the task, and of its target unless ``target_key`` is given.
        prompt: the default text condition.
        unit: what 0 and 1 mean.
        target_key: name of the target in a sample, if it is not ``name``.
    """
    return Task(
        name=name,
        channels=1,
        unit=unit,
        space="mask",
        frame=None,
        prompt=prompt,
        encode=encode,
        decode=decode_grey,
        losses={
            **MEAN_LOSSES,
            "bce": binary_cross_entropy,
            "balanced_bce": balanced_binary_cross_entropy,
            "iou": soft_iou,
        },
        weights={"mse": 1.0},
        flip=flip,
        distance=distance,
        merge=median,
        show=visualization.color_mask,
        align=unaligned,
        metrics=(MASKS["mae"], MASKS["iou"], MASKS["maxf"]),
        target_key="" if target_key == name else target_key,
    )


mask = mask_task("mask", "foreground mask")
