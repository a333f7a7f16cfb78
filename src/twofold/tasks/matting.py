"""Alpha mattes: the fraction of each pixel that is foreground, between 0 and 1 for hair and glass."""

from __future__ import annotations

from torch import Tensor

from .. import visualization
from ..metrics import MASKS
from .ensemble import median
from .image_tasks import decode_grey, distance, encode, flip, unaligned
from .losses import MEAN_LOSSES, masked_mean, probability
from .task import Task

# Under the square root, so that the gradient is finite for a perfect alpha (Xu et al. 2017, eq. 1).
_TINY = 1e-6


def composition(pred: Tensor, target: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """Mean difference of the image composed on black by the predicted and by the true alpha (Xu et al. 2017, eq. 2).

    The original composes the true foreground and background, which few data sets have; here the image takes the place
    of its foreground, so an error of alpha costs nothing where the image is black.

    Args:
        pred: ``b c h w`` in [-1, 1].
        target: the encoded target, likewise.
        mask: ``b 1 h w`` bool.
        image: ``b 3 h w`` in [0, 1].

    Returns:
        A scalar in the unit of the image; 1e-6, not 0, for a perfect alpha.
    """
    difference = (probability(pred) - probability(target)) * image
    return masked_mean((difference.square() + _TINY**2).sqrt(), mask)


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
    image_losses={"composition": composition},
)
