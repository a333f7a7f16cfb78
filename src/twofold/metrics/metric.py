"""What a metric is: something measured on images that adds, and the number concluded from the sum.

The sum of what was measured on the parts is what would be measured on the whole, so a score does not depend
on how the data is split over batches, shards or machines. The last entry of every sum counts the images
without a single valid pixel: they are reported, and never part of an average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# One image at a time: the values at its n valid pixels, (n c) predicted and (n c) true, both float64.
PixelFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Metric:
    """A named score.

    measure   (prediction *b c h w, target *b c h w, valid bool *b 1 h w) -> float64 vector that adds.
              ValueError when the shapes differ or a prediction is NaN or infinite where valid.
    conclude  the sum of such vectors -> the score; NaN when no image had a valid pixel.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    measure: Callable[[Tensor, Tensor, Tensor], Tensor]
    conclude: Callable[[Tensor], float]


def skipped(total: Tensor) -> int:
    """How many of the measured images had no valid pixel."""
    return int(total[-1])


def valid_pixels(prediction: Tensor, target: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each image's pixels (n c) where `valid`, float64. ValueError as `Metric` says."""
    if prediction.shape != target.shape or valid.shape != (*target.shape[:-3], 1, *target.shape[-2:]):
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(valid.shape)}"
        raise ValueError(f"prediction, target and mask do not fit together: {shapes}")
    pairs = []
    images = zip(*(x.reshape(-1, *x.shape[-3:]) for x in (prediction, target, valid)), strict=True)
    for p, d, v in images:
        inside = (p.permute(1, 2, 0)[v[0]].double(), d.permute(1, 2, 0)[v[0]].double())
        for what, x in zip(("prediction", "target"), inside, strict=True):
            if not bool(x.isfinite().all()):
                raise ValueError(f"the {what} is NaN or infinite at a valid pixel and has no score")
        pairs.append(inside)
    return pairs


def mean_over_images(
    name: str, unit: str, better: Literal["lower", "higher"], value: PixelFunction
) -> Metric:
    """One number an image, then the mean over images, each weighing the same: [sum, images, skipped]."""

    def measure(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        total = torch.zeros(3, dtype=torch.float64)
        for p, d in valid_pixels(prediction, target, valid):
            if len(p):
                total += torch.tensor([float(value(p, d)), 1.0, 0.0], dtype=torch.float64)
            else:
                total[2] += 1
        return total

    return Metric(name, unit, better, measure, mean)


def mean_over_pixels(
    name: str, unit: str, better: Literal["lower", "higher"], value: PixelFunction
) -> Metric:
    """A number (n) a pixel, then the mean over all pixels of all images: [sum, pixels, skipped]."""

    def measure(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        total = torch.zeros(3, dtype=torch.float64)
        for p, d in valid_pixels(prediction, target, valid):
            empty = float(len(p) == 0)
            total += torch.tensor([float(value(p, d).sum()), len(p), empty], dtype=torch.float64)
        return total

    return Metric(name, unit, better, measure, mean)


def mean(total: Tensor) -> float:
    """[sum, count, skipped] -> sum / count; NaN when nothing was counted."""
    return float(total[0] / total[1]) if total[1] > 0 else float("nan")
