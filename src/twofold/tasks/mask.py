"""The foreground of a picture, bright on dark (dichotomous segmentation: Qin et al. 2022, DIS), and other masks."""

from __future__ import annotations

from .. import visualization
from ..ensemble import median
from ..metrics import MASKS
from .losses import MEAN_LOSSES, balanced_binary_cross_entropy, binary_cross_entropy, soft_iou
from .pictures import decode_grey, distance, encode, flip, unaligned
from .task import Task


def mask_task(name: str, prompt: str, unit: str = "0 background to 1 foreground", source: str = "") -> Task:
    """A task of one number a pixel, how surely it belongs to something.

    Args:
        name: of the task, and of its target where ``source`` is empty.
        prompt: that asks for it.
        unit: what 0 and 1 mean.
        source: the target that it is learned from, where that has another name, such as ``mask``.
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
        source="" if source == name else source,
    )


mask = mask_task("mask", "foreground mask")
