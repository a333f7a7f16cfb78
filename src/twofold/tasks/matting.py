"""How much of each pixel is foreground, alpha: hair and glass are in between."""

from __future__ import annotations

from torch import Tensor

from .. import visualization
from ..ensemble import median
from ..metrics import MASKS
from .losses import MEAN_LOSSES, masked_mean, share
from .pictures import decode_grey, distance, encode, flip, unaligned
from .task import Task

# Of the square root, so that it has a slope where alpha is hit (Xu et al. 2017, eq. 1).
_TINY = 1e-6


def composition(said: Tensor, wanted: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """Mean difference of the picture laid on black by the alpha said and by the true one (Xu et al. 2017, eq. 2).

    They compose the true foreground and background, which few data have; here the picture stands for its foreground,
    so an error of alpha costs what is seen of it: nothing where the picture is black.

    Args:
        said: canvas ``b c h w`` in [-1, 1].
        wanted: canvas like it.
        mask: ``b 1 h w`` bool.
        image: ``b 3 h w`` in [0, 1].

    Returns:
        A scalar in the unit of the picture; 1e-6, not 0, where alpha is hit.
    """
    seen = (share(said) - share(wanted)) * image
    return masked_mean((seen.square() + _TINY**2).sqrt(), mask)


matting = Task(
    name="matting",
    channels=1,
    unit="alpha: 0 background to 1 foreground",
    space="alpha",
    frame=None,
    prompt="alpha matte",
    encode=encode,
    decode=decode_grey,
    losses=MEAN_LOSSES,
    weights={"mse": 1.0},
    flip=flip,
    distance=distance,
    merge=median,
    show=visualization.color_mask,
    align=unaligned,
    metrics=(MASKS["mae"], MASKS["mse"]),
    picture_losses={"composition": composition},
)
