"""How much of each pixel is foreground, alpha: hair and glass are in between."""

from __future__ import annotations

from .. import show
from ..ensemble import median
from ..metrics import MASKS
from .losses import gradient, l1, mse
from .pictures import decode_grey, distance, encode, flip, unaligned
from .task import Task

matting = Task(
    name="matting",
    channels=1,
    unit="alpha: 0 background to 1 foreground",
    space="alpha",
    frame=None,
    prompt="alpha matte",
    encode=encode,
    decode=decode_grey,
    losses={"mse": mse, "l1": l1, "gradient": gradient},
    weights={"mse": 1.0},
    flip=flip,
    distance=distance,
    merge=median,
    show=show.color_mask,
    align=unaligned,
    metrics=(MASKS["mae"], MASKS["mse"]),
)
