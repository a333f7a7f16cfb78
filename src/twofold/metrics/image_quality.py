"""Scores of images with values in [0, 1]: computed on one image over all channels, then averaged over images."""

from __future__ import annotations

from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean_over_images

# Lower bound of the mean squared error, 100 dB, so that one perfect image does not make the mean infinite.
SMALLEST_ERROR = 1e-10


def _mse(x: MetricInput) -> Tensor:
    return (x.p - x.d).square().mean()


def _psnr(x: MetricInput) -> Tensor:
    """10 log10 (1 / mean squared error), for a peak of 1."""
    return -10 * x.cached(_mse).clamp(min=SMALLEST_ERROR).log10()


IMAGE_QUALITY: dict[str, Metric] = {
    "mse": mean_over_images("mse", "", "lower", _mse),
    "psnr": mean_over_images("psnr", "dB", "higher", _psnr),
}
