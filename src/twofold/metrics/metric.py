"""What a metric is: something measured on images that adds, and the number concluded from the sum.

The sum of what was measured on the parts is what would be measured on the whole, so a score does not depend
on how the data is split over batches, shards or machines. The last entry of every sum counts the images that
have no score, for want of a valid pixel: they are reported, and never part of an average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

# Pixels that are looked at together: larger temporaries cost more to allocate than to compute.
BLOCK = 16384

Better = Literal["lower", "higher"]
T = TypeVar("T")


class Pair:
    """One image's prediction and truth, on the CPU, and what several scores need of them, computed once.

    prediction  c h w
    target      c h w
    valid       bool 1 h w: where the truth is known; nothing outside it ever matters
    """

    def __init__(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        self.prediction, self.target, self.valid = (x.detach().cpu() for x in (prediction, target, valid))
        self._kept: dict[Hashable, object] = {}

    def once(self, of: Callable[[Pair], T]) -> T:
        """``of(self)``, computed when it is first asked for."""
        if of not in self._kept:
            self._kept[of] = of(self)
        return self._kept[of]  # ty: ignore[invalid-return-type]

    @cached_property
    def count(self) -> int:
        """The number of valid pixels."""
        return int(np.count_nonzero(self.valid.numpy()))

    @cached_property
    def at(self) -> Tensor | None:
        """The n valid places in a flattened image; None when all are."""
        return None if self.count == self.valid.numel() else self.valid.flatten().nonzero()[:, 0]

    @cached_property
    def p(self) -> Tensor:
        """What was predicted at the valid pixels, float64 c n. ValueError when it is NaN or infinite."""
        return _finite(self._pick(self.prediction), "prediction")

    @cached_property
    def d(self) -> Tensor:
        """What is true at the valid pixels, float64 c n. ValueError when it is NaN or infinite."""
        return _finite(self._pick(self.target), "target")

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`p` and `d` in pieces that fit a processor's cache: several times faster where much is computed of them."""
        p, d = (_array(x.flatten(1)) for x in (self.prediction, self.target))
        valid = self.valid.flatten().numpy()
        for start in range(0, len(valid), BLOCK):
            piece = slice(start, start + BLOCK)
            known = valid[piece]
            n = np.count_nonzero(known)
            if n:
                # By numpy, whose masks are some five times faster than torch's.
                pieces = (x[:, piece] if n == len(known) else _masked(x[:, piece], known) for x in (p, d))
                said, true = (torch.from_numpy(x).double() for x in pieces)
                yield _finite(said, "prediction"), _finite(true, "target")

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Numbers of the valid pixels, c n, as an image, float64 c h w with `fill` where not valid."""
        shape = (len(values), *self.valid.shape[-2:])
        if self.at is None:
            return values.double().reshape(shape)
        flat = torch.full((len(values), self.valid.numel()), fill, dtype=torch.float64)
        return flat.index_copy(1, self.at, values.double()).reshape(shape)

    def filled(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """Prediction and truth as images, float64 c h w, both `fill` where not valid. ValueError like `p`."""
        return self.spread(self.p, fill), self.spread(self.d, fill)

    def _pick(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat if self.at is None else flat.index_select(1, self.at)).double()


def _array(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _masked(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The columns of c n where the mask (n) is True."""
    return np.stack([row[mask] for row in x]) if len(x) > 1 else x[0][mask][None]


def _finite(values: Tensor, what: str) -> Tensor:
    # One pass: a sum is finite exactly when its terms are, short of an overflow, which the second look settles.
    if not math.isfinite(float(values.sum())) and not bool(values.isfinite().all()):
        raise ValueError(f"the {what} is NaN or infinite at a valid pixel and has no score")
    return values


@dataclass(frozen=True)
class Metric:
    """A named score.

    part      one image -> float64 vector that adds; its last entry is 1 when the image has no score, else 0.
    conclude  the sum of such vectors -> the score; NaN when no image had one.

    A metric can be sent to other processes when both are functions of a module (or partials of such).
    """

    name: str
    unit: str
    better: Better
    part: Callable[[Pair], Tensor]
    conclude: Callable[[Tensor], float]

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The sum of the images' parts.

        Args:
            prediction: ``*b c h w``.
            target: ``*b c h w``.
            valid: bool ``*b 1 h w``, where the target is known.

        Raises:
            ValueError: the shapes do not fit, or a number is NaN or infinite at a valid pixel.
        """
        return measure_many([self], prediction, target, valid)[self.name]


def skipped(total: Tensor) -> int:
    """How many of the measured images have no score."""
    return int(total[-1])


def pairs(prediction: Tensor, target: Tensor, valid: Tensor) -> Iterator[Pair]:
    """The images of a batch of any shape. ValueError when the shapes do not fit, as `Metric.measure` says."""
    if prediction.shape != target.shape or valid.shape != (*target.shape[:-3], 1, *target.shape[-2:]):
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(valid.shape)}"
        raise ValueError(f"prediction, target and mask do not fit together: {shapes}")
    images = (x.reshape(-1, *x.shape[-3:]) for x in (prediction, target, valid))
    return (Pair(p, d, v) for p, d, v in zip(*images, strict=True))


def measure_many(
    metrics: Iterable[Metric], prediction: Tensor, target: Tensor, valid: Tensor
) -> dict[str, Tensor]:
    """What each metric's `measure` gives, by name; the work that they share is done once.

    ValueError as of `Metric.measure`, or when two metrics have one name.
    """
    metrics = tuple(metrics)
    names = [m.name for m in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"two metrics have one name among {', '.join(names)}; measure them apart")
    total: dict[str, Tensor] = {}
    for pair in pairs(prediction, target, valid):
        # A copy, because metrics of one family may share what was kept.
        part = {m.name: pair.once(m.part) for m in metrics}
        total = {name: total[name] + x if name in total else x.clone() for name, x in part.items()}
    if metrics and not total:
        raise ValueError(f"a batch of no images, {tuple(target.shape)}, has no score")
    return total


def vector(*entries: float | Tensor) -> Tensor:
    """Numbers and vectors, one after another, as a part: float64."""
    return torch.cat([torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in entries])


def count(mask: Tensor) -> int:
    """How many are True; torch's own sum is some ten times slower."""
    return int(np.count_nonzero(mask.numpy()))


def mean(total: Tensor) -> float:
    """[sum, count, skipped] -> sum / count; NaN when nothing was counted."""
    return float(total[0] / total[1]) if total[1] > 0 else float("nan")


def root_mean(total: Tensor) -> float:
    """[sum, count, skipped] -> the root of sum / count; NaN when nothing was counted."""
    return mean(total) ** 0.5


def mean_over_images(name: str, unit: str, better: Better, value: Callable[[Pair], Tensor | float]) -> Metric:
    """One number an image, then the mean over images, each weighing the same: [sum, images, skipped].

    An image without a valid pixel, or whose value is NaN, is not part of the mean.
    """
    return Metric(name, unit, better, partial(_image, value), mean)


def mean_over_pixels(name: str, unit: str, better: Better, value: Callable[[Pair], Tensor]) -> Metric:
    """A number a valid pixel, then the mean over all pixels of all images: [sum, pixels, skipped]."""
    return Metric(name, unit, better, partial(_pixels, value), mean)


def sum_over_pixels(
    name: str, unit: str, better: Better, total: Callable[[Pair], float], conclude: Callable = mean
) -> Metric:
    """The same as `mean_over_pixels` of what adds up to ``total(pair)``, a number an image."""
    return Metric(name, unit, better, partial(_sum, total), conclude)


def _image(value: Callable[[Pair], Tensor | float], pair: Pair) -> Tensor:
    number = float(value(pair)) if pair.count else float("nan")
    return vector(0, 0, 1) if number != number else vector(number, 1, 0)


def _pixels(value: Callable[[Pair], Tensor], pair: Pair) -> Tensor:
    if not pair.count:
        return vector(0, 0, 1)
    numbers = value(pair)
    return vector(numbers.sum(), numbers.numel(), 0)


def _sum(total: Callable[[Pair], float], pair: Pair) -> Tensor:
    return vector(total(pair), pair.count, 0) if pair.count else vector(0, 0, 1)
