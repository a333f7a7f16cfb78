"""Data augmentation: zoom, and colour changes of a camera (`colours`) or of semantic segmentation (`photometric`)."""

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
    """A random box (top, left, height, width), pixels, with the aspect ratio of ``size`` in an image of ``shape``.

    Its scale is drawn uniformly from ``scales``, where 1 is the largest box that fits.
    """
    height, width = shape
    fit = min(height / size[0], width / size[1]) * uniform(rng, *scales)
    h, w = max(1, min(height, round(size[0] * fit))), max(1, min(width, round(size[1] * fit)))
    top = int(torch.randint(height - h + 1, (), generator=rng))
    left = int(torch.randint(width - w + 1, (), generator=rng))
    return top, left, h, w


def colours(image: Tensor, rng: torch.Generator) -> Tensor:
    """An image ``3 h w`` in [0, 1] with random exposure, contrast, white balance, saturation, sharpness and noise.

    An image is unchanged with probability 1/4.
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


def photometric(image: Tensor, rng: torch.Generator) -> Tensor:
    """An image ``3 h w`` in [0, 1] with the color distortion of SSD (Liu et al. 2016), as used for segmentation.

    Each with probability 1/2: brightness by up to 32 / 255, contrast by a factor of 0.5 to 1.5 (before or after the
    rest, equally likely), saturation by a factor of the same range, and hue by -36 to 34 degrees in steps of 2. These
    are the numbers of mmsegmentation, VPD and InvPT, which round to 8 bits after each step; this does not.
    """
    if chance(rng, 0.5):
        image = (image + uniform(rng, -32, 32) / 255).clamp(0, 1)
    contrast = uniform(rng, 0.5, 1.5) if chance(rng, 0.5) else 1.0
    contrast_first = chance(rng, 0.5)
    if contrast_first:
        image = (image * contrast).clamp(0, 1)
    if chance(rng, 0.5):
        hue, saturation, value = rgb_to_hsv(image)
        image = hsv_to_rgb(hue, (saturation * uniform(rng, 0.5, 1.5)).clamp(0, 1), value)
    if chance(rng, 0.5):
        hue, saturation, value = rgb_to_hsv(image)
        image = hsv_to_rgb(hue + int(torch.randint(-18, 18, (), generator=rng)) / 180, saturation, value)
    return image if contrast_first else (image * contrast).clamp(0, 1)


def rgb_to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``3 h w`` to hue, saturation and value, ``h w`` each in [0, 1]; the hue of grey is 0 (as `colorsys`)."""
    red, green, blue = image
    value = image.amax(0)
    spread = value - image.amin(0)
    divisor = torch.where(spread > 0, spread, 1)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return sector / 6 % 1, spread / torch.where(value > 0, value, 1), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`; the hue has a period of 1."""
    place = (torch.tensor([5.0, 3.0, 1.0]).reshape(3, 1, 1) + hue * 6) % 6
    return value - value * saturation * torch.minimum(place, 4 - place).clamp(0, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """``c h w`` blurred by a Gaussian of standard deviation ``sigma``, pixels."""
    reach = 3
    x = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-x.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(image[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(-1, -2))[:, 0]
