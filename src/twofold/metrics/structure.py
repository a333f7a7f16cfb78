"""Scores of a mask that weigh errors by where they are: S-measure and weighted F.

g is the true foreground (bool h w) and p, in [0, 1], the predicted foreground probability (float64 h w).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Keeps a quotient of nothing from being undefined, as the published code does.
TINY = float(np.spacing(1))
# Weighted F: errors are smoothed by a Gaussian of this reach and width, and a false alarm weighs up to twice as much
# as a miss, halfway there this far from the foreground (all in pixels).
REACH, WIDTH = 3, 5.0
HALFWAY = 5.0


def s_measure(p: Map, g: Mask, alpha: float = 0.5) -> float:
    """Structural similarity of object and regions (Fan et al. 2017), in [0, 1].

    `alpha` weighs the object against the regions. Where the truth has no foreground, or nothing else, it is
    the mean of 1 - p, or of p.
    """
    share = g.mean()
    if share == 0:
        return float(1 - p.mean())
    if share == 1:
        return float(p.mean())
    whole = share * _object_similarity(p[g]) + (1 - share) * _object_similarity(1 - p[~g])
    return max(0.0, float(alpha * whole + (1 - alpha) * _region_similarity(p, g)))


def _object_similarity(x: Map) -> float:
    """How near the numbers (n) are to 1, and to each other."""
    m, spread = x.mean(), x.std(ddof=1) if x.size > 1 else 0.0
    return 2 * m / (m * m + 1 + spread + TINY)


def _region_similarity(p: Map, g: Mask) -> float:
    """The similarity of the four blocks around the foreground's centre, each weighing as its area."""
    height, width = g.shape
    row = _centroid(g.sum(1))
    column = _centroid(g.sum(0))
    total = 0.0
    for rows in (slice(0, row), slice(row, height)):
        for columns in (slice(0, column), slice(column, width)):
            block = p[rows, columns]
            # A block of no pixels has no similarity and no weight; the published code makes the score NaN.
            if block.size:
                total += block.size / g.size * _similarity(block, g[rows, columns].astype(np.float64))
    return total


def _centroid(counts: NDArray) -> int:
    """One past the mean row (or column) of the foreground, halves to even as numpy rounds."""
    return int(np.round((np.arange(len(counts)) * counts).sum() / counts.sum())) + 1


def _similarity(p: Map, g: Map) -> float:
    """SSIM of two blocks without its constants; 1 when neither varies or both are 0."""
    mean_p, mean_g = p.mean(), g.mean()
    freedom = p.size - 1 + TINY
    centred_p, centred_g = p - mean_p, g - mean_g
    variance = ((centred_p * centred_p).sum() + (centred_g * centred_g).sum()) / freedom
    shared = 4 * mean_p * mean_g * (centred_p * centred_g).sum() / freedom
    scale = (mean_p**2 + mean_g**2) * variance
    if shared != 0:
        return float(shared / (scale + TINY))
    return 1.0 if scale == 0 else 0.0


def weighted_f(p: Map, g: Mask) -> float:
    """F with errors weighed by where they are (Margolin et al. 2014), beta = 1; 0 where there is no true foreground.

    An error inside the foreground counts less when its surroundings are right; one outside counts more
    the farther it is from the foreground. Images smaller than 7 pixels suffer from the padding with zeros.
    """
    from scipy.ndimage import correlate1d, distance_transform_edt

    if not g.any():
        return 0.0
    error = np.abs(p - g)
    distance, nearest = distance_transform_edt(~g, return_indices=True)
    # Outside the foreground, the smoothing uses the error at the nearest foreground pixel.
    around = error[nearest[0], nearest[1]]
    kernel = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * WIDTH**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        around = correlate1d(around, kernel, axis=axis, mode="constant", cval=0.0)
    inside = np.minimum(error, around)[g]
    outside = (error * (2 - np.exp(math.log(0.5) / HALFWAY * distance)))[~g]
    hit = inside.size - inside.sum()
    recall = 1 - inside.mean()
    precision = hit / (hit + outside.sum() + TINY)
    return float(2 * recall * precision / (recall + precision + TINY))
