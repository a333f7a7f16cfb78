"""Metrics of a mask that depend on the location of errors: S-measure and weighted F.

g is the true foreground (bool h w) and p, in [0, 1], the predicted foreground probability (float64 h w).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Added to denominators, as in the published code.
TINY = float(np.spacing(1))
# Weighted F, in pixels: radius and width of the Gaussian that smooths errors; distance from the foreground at which the
# weight of a false positive is 1.5. It grows from 1 at the foreground to 2.
REACH, WIDTH = 3, 5.0
HALFWAY = 5.0


def s_measure(p: Map, g: Mask, alpha: float = 0.5) -> float:
    """S-measure (Fan et al. 2017), in [0, 1]: alpha * object similarity + (1 - alpha) * region similarity.

    It is the mean of 1 - p when the target has no foreground, and the mean of p when it has no background.
    """
    share = g.mean()
    if share == 0:
        return float(1 - p.mean())
    if share == 1:
        return float(p.mean())
    whole = share * _object_similarity(p[g]) + (1 - share) * _object_similarity(1 - p[~g])
    return max(0.0, float(alpha * whole + (1 - alpha) * _region_similarity(p, g)))


def _object_similarity(x: Map) -> float:
    """Object similarity of values (n): 2 m / (m^2 + 1 + standard deviation), m their mean."""
    m, spread = x.mean(), x.std(ddof=1) if x.size > 1 else 0.0
    return 2 * m / (m * m + 1 + spread + TINY)


def _region_similarity(p: Map, g: Mask) -> float:
    """Area-weighted mean similarity of the four blocks that meet at the foreground's centroid."""
    height, width = g.shape
    row = _centroid(g.sum(1))
    column = _centroid(g.sum(0))
    total = 0.0
    for rows in (slice(0, row), slice(row, height)):
        for columns in (slice(0, column), slice(column, width)):
            block = p[rows, columns]
            # Skip empty blocks; the published code returns NaN.
            if block.size:
                total += block.size / g.size * _similarity(block, g[rows, columns].astype(np.float64))
    return total


def _centroid(counts: NDArray) -> int:
    """One past the mean row (or column) of the foreground, rounded half to even."""
    return int(np.round((np.arange(len(counts)) * counts).sum() / counts.sum())) + 1


def _similarity(p: Map, g: Map) -> float:
    """SSIM of two blocks without its constants; 1 when both are constant or both are 0."""
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
    """Weighted F (Margolin et al. 2014), beta = 1; 0 when there is no true foreground.

    An error inside the foreground counts less when its neighbours are correct; one outside counts more the farther
    it is from the foreground. Zero padding distorts the score of images smaller than 7 pixels.
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
