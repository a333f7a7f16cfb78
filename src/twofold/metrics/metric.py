"""A metric: a vector of sums for each image (``update``), and a score computed from their total (``compute``).

The sums of subsets add up to the sums of the whole set, so a score does not depend on how the data are split over
batches, shards or machines. The last entry of every vector counts the images without a score, usually because they have
no valid pixel: they are reported and excluded from every average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

# Pixels processed at once: larger temporaries cost more to allocate than to compute.
BLOCK = 16384

Better = Literal["lower", "higher"]
T = TypeVar("T")


class MetricInput:
    """One image's prediction and ground truth, on the CPU, with a cache for values that several metrics share.

    prediction  c h w
    target      c h w
    valid       bool 1 h w: where the ground truth is known; pixels outside it are ignored
    """

    def __init__(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        self.prediction, self.target, self.valid = (x.detach().cpu() for x in (prediction, target, valid))
        self._cache: dict[Hashable, object] = {}

    def cached(self, function: Callable[[MetricInput], T]) -> T:
        """``function(self)``, computed at the first call and cached."""
        if function not in self._cache:
            self._cache[function] = function(self)
        return self._cache[function]  # ty: ignore[invalid-return-type]

    @cached_property
    def count(self) -> int:
        """The number of valid pixels."""
        return int(np.count_nonzero(self.valid.numpy()))

    @cached_property
    def at(self) -> Tensor | None:
        """Indices (n) of the valid pixels in the flattened image; None when all are valid."""
        return None if self.count == self.valid.numel() else self.valid.flatten().nonzero()[:, 0]

    @cached_property
    def p(self) -> Tensor:
        """The prediction at the valid pixels, float64 c n. ValueError when it is NaN or infinite."""
        return _finite(self._select(self.prediction), "prediction")

    @cached_property
    def d(self) -> Tensor:
        """The ground truth at the valid pixels, float64 c n. ValueError when it is NaN or infinite."""
        return _finite(self._select(self.target), "target")

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`p` and `d` in blocks that fit the processor's cache, which is several times faster."""
        p, d = (_array(x.flatten(1)) for x in (self.prediction, self.target))
        valid = self.valid.flatten().numpy()
        for start in range(0, len(valid), BLOCK):
            piece = slice(start, start + BLOCK)
            known = valid[piece]
            n = np.count_nonzero(known)
            if n:
                # numpy's boolean indexing is about five times faster than torch's.
                pieces = (x[:, piece] if n == len(known) else _masked(x[:, piece], known) for x in (p, d))
                predicted, target = (torch.from_numpy(x).double() for x in pieces)
                yield _finite(predicted, "prediction"), _finite(target, "target")

    def scatter(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values at the valid pixels (c n) as an image, float64 c h w, with `fill` at the other pixels."""
        shape = (len(values), *self.valid.shape[-2:])
        if self.at is None:
            return values.double().reshape(shape)
        flat = torch.full((len(values), self.valid.numel()), fill, dtype=torch.float64)
        return flat.index_copy(1, self.at, values.double()).reshape(shape)

    def filled(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """Prediction and ground truth as images, float64 c h w, `fill` where not valid. ValueError as for `p`."""
        return self.scatter(self.p, fill), self.scatter(self.d, fill)

    def _select(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat if self.at is None else flat.index_select(1, self.at)).double()


def _array(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def _masked(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The columns of c n where the mask (n) is True."""
    return np.stack([row[mask] for row in x]) if len(x) > 1 else x[0][mask][None]


def _finite(values: Tensor, what: str) -> Tensor:
    # One pass in the usual case. The sum of finite values may overflow, so test each value when the sum is not finite.
    if not math.isfinite(float(values.sum())) and not bool(values.isfinite().all()):
        raise ValueError(f"the {what} is NaN or infinite at a valid pixel and has no score")
    return values


@dataclass(frozen=True)
class Metric:
    """A named score.

    update   one image -> float64 vector of sums; its last entry is 1 when the image has no score, else 0.
    compute  the total of such vectors -> the score; NaN when no image has one.

    A metric can be pickled when both are module-level functions (or partials of them).
    """

    name: str
    unit: str
    better: Better
    update: Callable[[MetricInput], Tensor]
    compute: Callable[[Tensor], float]

    def measure(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The vectors of `update`, summed over the images of a batch.

        Args:
            prediction: ``*b c h w``.
            target: ``*b c h w``.
            valid: bool ``*b 1 h w``, where the target is known.

        Raises:
            ValueError: the shapes do not match, or a value is NaN or infinite at a valid pixel.
        """
        return measure_many([self], prediction, target, valid)[self.name]


def skipped(total: Tensor) -> int:
    """The number of images without a score in a total."""
    return int(total[-1])


def metric_inputs(prediction: Tensor, target: Tensor, valid: Tensor) -> Iterator[MetricInput]:
    """The images of a batch with any leading dimensions. ValueError when the shapes do not match (`Metric.measure`)."""
    if prediction.shape != target.shape or valid.shape != (*target.shape[:-3], 1, *target.shape[-2:]):
        shapes = f"{tuple(prediction.shape)}, {tuple(target.shape)}, {tuple(valid.shape)}"
        raise ValueError(f"the shapes of prediction, target and mask do not match: {shapes}")
    images = (x.reshape(-1, *x.shape[-3:]) for x in (prediction, target, valid))
    return (MetricInput(p, d, v) for p, d, v in zip(*images, strict=True))


def measure_many(
    metrics: Iterable[Metric], prediction: Tensor, target: Tensor, valid: Tensor
) -> dict[str, Tensor]:
    """`Metric.measure` of several metrics, by name; intermediate results that they share are computed once.

    ValueError as for `Metric.measure`, or when two metrics have the same name.
    """
    metrics = tuple(metrics)
    names = [m.name for m in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"two metrics have the same name among {', '.join(names)}; measure them separately")
    total: dict[str, Tensor] = {}
    for x in metric_inputs(prediction, target, valid):
        # Cloned, because metrics may share one cached vector.
        total = merge_sums(total, {m.name: x.cached(m.update).clone() for m in metrics})
    if metrics and not total:
        raise ValueError(f"a batch of no images, {tuple(target.shape)}, has no score")
    return total


def merge_sums(total: Mapping[str, Tensor], sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add `sums` to `total`, metric by metric; `total` may be empty."""
    return {name: total[name] + value if name in total else value for name, value in sums.items()}


def vector(*entries: float | Tensor) -> Tensor:
    """Concatenate numbers and vectors to one float64 vector."""
    return torch.cat([torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in entries])


def count(mask: Tensor) -> int:
    """The number of True entries; about ten times faster than torch's sum."""
    return int(np.count_nonzero(mask.numpy()))


def mean(total: Tensor) -> float:
    """[sum, count, skipped] -> sum / count; NaN when count is 0."""
    return float(total[0] / total[1]) if total[1] > 0 else float("nan")


def root_mean(total: Tensor) -> float:
    """[sum, count, skipped] -> sqrt(sum / count); NaN when count is 0."""
    return mean(total) ** 0.5


def mean_over_images(
    name: str, unit: str, better: Better, value: Callable[[MetricInput], Tensor | float]
) -> Metric:
    """One value per image, then the unweighted mean over images: [sum, images, skipped].

    An image without a valid pixel, or whose value is NaN, is skipped.
    """
    return Metric(name, unit, better, partial(_image, value), mean)


def mean_over_pixels(name: str, unit: str, better: Better, value: Callable[[MetricInput], Tensor]) -> Metric:
    """One value per valid pixel, then the mean over all pixels of all images: [sum, pixels, skipped]."""
    return Metric(name, unit, better, partial(_pixels, value), mean)


def sum_over_pixels(
    name: str, unit: str, better: Better, total: Callable[[MetricInput], float], compute: Callable = mean
) -> Metric:
    """`mean_over_pixels` for a function that returns the sum over an image's pixels."""
    return Metric(name, unit, better, partial(_sum, total), compute)


def _image(value: Callable[[MetricInput], Tensor | float], x: MetricInput) -> Tensor:
    number = float(value(x)) if x.count else float("nan")
    return vector(0, 0, 1) if number != number else vector(number, 1, 0)


def _pixels(value: Callable[[MetricInput], Tensor], x: MetricInput) -> Tensor:
    if not x.count:
        return vector(0, 0, 1)
    numbers = value(x)
    return vector(numbers.sum(), numbers.numel(), 0)


def _sum(total: Callable[[MetricInput], float], x: MetricInput) -> Tensor:
    return vector(total(x), x.count, 0) if x.count else vector(0, 0, 1)
