"""The foreground of a picture, bright on dark (dichotomous segmentation: Qin et al. 2022, DIS)."""

from __future__ import annotations

from .. import show
from ..ensemble import median
from ..metrics import MASKS
from .losses import binary_cross_entropy, gradient, l1, mse, soft_iou
from .pictures import decode_grey, distance, encode, flip, unaligned
from .task import Task

mask = Task(
    name="mask",
    channels=1,
    unit="0 background to 1 foreground",
    space="mask",
    frame=None,
    prompt="foreground mask",
    encode=encode,
    decode=decode_grey,
    losses={"mse": mse, "l1": l1, "gradient": gradient, "bce": binary_cross_entropy, "iou": soft_iou},
    weights={"mse": 1.0},
    flip=flip,
    distance=distance,
    merge=median,
    show=show.color_mask,
    align=unaligned,
    metrics=(MASKS["mae"], MASKS["iou"]),
)
