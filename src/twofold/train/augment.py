"""The same scene seen by another camera: nearer, in other light, less clearly. Geometry stays true."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """One number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def chance(rng: torch.Generator, p: float) -> bool:
    """True with probability ``p``."""
    return bool(torch.rand((), generator=rng) < p)


def zoom(
    shape: Sequence[int],
    size: tuple[int, int],
    scales: tuple[float, float],
    rng: torch.Generator,
) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) of ``size``'s aspect inside a picture of ``shape``.

    Its scale is drawn from ``scales``, in which 1 is the largest box that fits.
    """
    height, width = shape
    fit = min(height / size[0], width / size[1]) * uniform(rng, *scales)
    h, w = max(1, min(height, round(size[0] * fit))), max(1, min(width, round(size[1] * fit)))
    top = int(torch.randint(height - h + 1, (), generator=rng))
    left = int(torch.randint(width - w + 1, (), generator=rng))
    return top, left, h, w


def rescaled_box(
    shape: Sequence[int],
    size: tuple[int, int],
    scales: tuple[float, float],
    rng: torch.Generator,
    ids: Tensor | None = None,
    most: float = 1.0,
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """A box (top, left, height, width) of an image of ``shape``, and the size it is brought to, at most ``size``.

    As semantic segmentation is trained (mmsegmentation, VPD): the image's short edge becomes that of ``size`` times a
    factor drawn from ``scales``, its long edge at most four times as long, and a window of ``size`` is cut out. Where
    the image is then smaller than the window, all of it is taken: the rest is to be padded.

    Args:
        shape: height and width.
        size: of the window.
        scales: least and largest factor.
        rng: what is drawn is drawn from it.
        ids: class ids ``1 H W`` of the image, -1 where unknown.
        most: share of the known pixels of a window that one class may have; of up to ten windows the first is taken in
            which none has more, and which shows two classes, else the last (``cat_max_ratio``).
    """
    height, width = shape
    short = min(size) * uniform(rng, *scales)
    factor = min(short / min(height, width), 4 * short / max(height, width))
    new = tuple(min(n, max(1, round(side * factor))) for n, side in zip(size, shape, strict=True))
    h, w = (max(1, min(side, round(n / factor))) for side, n in zip(shape, new, strict=True))
    box = (0, 0, h, w)
    for _ in range(1 if ids is None or most >= 1 else 10):
        top = int(torch.randint(height - h + 1, (), generator=rng))
        left = int(torch.randint(width - w + 1, (), generator=rng))
        box = (top, left, h, w)
        if ids is None or most >= 1:
            break
        seen = ids[..., top : top + h, left : left + w]
        counts = seen[seen >= 0].long().bincount()
        if (counts > 0).sum() > 1 and counts.max() < most * counts.sum():
            break
    return box, (new[0], new[1])


def colours(image: Tensor, rng: torch.Generator) -> Tensor:
    """An image ``3 h w`` in [0, 1] with other exposure, contrast, white balance, saturation, sharpness and noise.

    Every fourth image is left as it is.
    """
    if chance(rng, 0.25):
        return image
    image = image ** uniform(rng, 0.6, 1.6)
    gains = torch.tensor([uniform(rng, 0.85, 1.15) for _ in range(3)]).reshape(3, 1, 1)
    image = image * gains * uniform(rng, 0.75, 1.3)
    grey = image.mean(0, keepdim=True)
    image = grey + (image - grey) * (0.0 if chance(rng, 0.08) else uniform(rng, 0.5, 1.5))
    middle = image.mean()
    image = middle + (image - middle) * uniform(rng, 0.75, 1.25)
    if chance(rng, 0.3):
        image = blurred(image, uniform(rng, 0.4, 1.2))
    if chance(rng, 0.4):
        image = image + torch.randn(image.shape, generator=rng) * uniform(rng, 0.0, 0.04)
    return image.clamp(0, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """``c h w`` under a Gaussian of ``sigma`` pixels."""
    reach = 3
    x = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-x.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(image[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(-1, -2))[:, 0]
