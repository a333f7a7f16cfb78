"""Distances between sets of generated and real images (FID, KID), and diversity, in the feature space of a network.

A score depends on the network, the size its images are resized to, and the number of images: published FID uses the
2048 features of Inception v3's last pooling, at 299 pixels, of 50,000 images.
`Moments` of subsets can be added in any order, up to rounding; KID and the mean distance need all `Features`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..image import check_range

# Images b 3 h w in [0, 1] -> features b d.
FeatureNetwork = Callable[[Tensor], Tensor]
# Rows of the kernel matrix computed at once, so that the whole n n matrix is never in memory.
ROWS = 1024


@dataclass(frozen=True)
class Features:
    """Features of n images, float64 n d; adding two sets concatenates them."""

    rows: Tensor

    @classmethod
    def of(cls, images: Iterable[Tensor], network: FeatureNetwork) -> Features:
        """Features of batches ``b 3 h w`` in [0, 1], computed by the network without gradients.

        Raises:
            ValueError: there is no image, a batch is not in [0, 1], or its features are not ``b d`` or not finite.
        """
        found = []
        with torch.no_grad():
            for batch in images:
                check_range(batch, "a batch of images")
                rows = network(batch)
                if rows.ndim != 2 or len(rows) != len(batch):
                    raise ValueError(
                        f"the network returns {tuple(rows.shape)} for {len(batch)} images; expected one row each"
                    )
                found.append(rows.cpu().double())
        if not found:
            raise ValueError("there are no images to measure")
        return cls(torch.cat(found))

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or not bool(self.rows.isfinite().all()):
            raise ValueError(f"features are finite numbers, n d; these are {tuple(self.rows.shape)}")

    def __add__(self, other: Features) -> Features:
        return Features(torch.cat([self.rows, other.rows]))

    @property
    def moments(self) -> Moments:
        """The sums that FID is computed from."""
        rows = self.rows.double()
        return Moments(len(rows), rows.sum(0), rows.T @ rows)


@dataclass(frozen=True)
class Moments:
    """Sums over images, float64: their number, the features (d) and their outer products (d d)."""

    count: int
    total: Tensor
    products: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> Tensor:
        """Mean of the features, d. ValueError without an image."""
        if self.count < 1:
            raise ValueError("there are no images to measure")
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance of the features, d d, over n - 1. ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"{self.count} images have no covariance; measure at least 2")
        return (self.products - torch.outer(self.total, self.mean)) / (self.count - 1)


def fid(real: Moments, generated: Moments) -> float:
    """Frechet distance of the two Gaussians with these moments (Heusel et al. 2017): 0 when they are equal.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Its upward bias grows as the number of images falls: compare equal
    numbers of images, and use more images than the network has features.
    """
    c1, c2 = real.covariance, generated.covariance
    # tr (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2). This form is real and does not take roots
    # of rounding errors, which are large with fewer images than features.
    shared = torch.linalg.svdvals(_root(c1) @ _root(c2)).sum()
    apart = (real.mean - generated.mean).square().sum()
    return max(0.0, float(apart + c1.trace() + c2.trace() - 2 * shared))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kid(real: Features, generated: Features) -> float:
    """Kernel inception distance (Binkowski et al. 2018): the unbiased estimate of MMD^2 from all pairs of images.

    The kernel of two feature vectors is (x.y / d + 1)^3. For two sets from one distribution its expectation is 0, so
    the value can be negative. Published tables print the mean over random subsets of 1,000, a noisier estimate of the
    same quantity (`kid_of_subsets`). ValueError for fewer than two images in either set.
    """
    n, m = len(real.rows), len(generated.rows)
    if min(n, m) < 2:
        raise ValueError(
            f"the kernel distance of {n} and {m} images is undefined; measure at least 2 of each"
        )
    within = _kernel_sum(real.rows, real.rows, False) / (n * (n - 1))
    within += _kernel_sum(generated.rows, generated.rows, False) / (m * (m - 1))
    return within - 2 * _kernel_sum(real.rows, generated.rows, True) / (n * m)


def kid_of_subsets(
    real: Features, generated: Features, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation (over n) of `kid` over random subsets, as in published tables.

    Subsets are drawn without replacement and are at most as large as the smaller set. The draw depends on the seed and
    on the order of the features, so the result depends on how the data are split; that of `kid` does not.
    """
    rng = torch.Generator().manual_seed(seed)
    size = min(size, len(real.rows), len(generated.rows))
    distances = []
    for _ in range(subsets):
        drawn = [
            Features(x.rows[torch.randperm(len(x.rows), generator=rng)[:size]]) for x in (real, generated)
        ]
        distances.append(kid(*drawn))
    values = torch.tensor(distances, dtype=torch.float64)
    return float(values.mean()), float(values.std(correction=0))


def _kernel_sum(x: Tensor, y: Tensor, with_diagonal: bool) -> float:
    """The kernel summed over all pairs of rows; without the diagonal, over pairs of different rows of one set."""
    total = 0.0
    for block in x.split(ROWS):
        total += float((block @ y.T / x.shape[1] + 1).pow(3).sum())
    return total if with_diagonal else total - float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())


def diversity(moments: Moments) -> float:
    """Diversity: root mean squared Euclidean distance of two different images' features.

    It is the square root of twice the covariance's trace, so it is computed from sums.
    """
    return math.sqrt(max(0.0, 2 * float(moments.covariance.trace())))


def mean_distance(features: Features) -> float:
    """Diversity: the mean Euclidean distance of two different images' features; at most `diversity`.

    ValueError for fewer than two images.
    """
    n = len(features.rows)
    if n < 2:
        raise ValueError(f"the mean distance of {n} images is undefined; measure at least 2")
    rows = features.rows.double()
    total = sum(
        float(torch.cdist(b, rows, compute_mode="donot_use_mm_for_euclid_dist").sum())
        for b in rows.split(ROWS)
    )
    return total / (n * (n - 1))
