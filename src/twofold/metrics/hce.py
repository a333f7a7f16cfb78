"""Human correction effort (HCE): an estimate of the clicks needed to correct a mask (Qin et al. 2022, DIS).

Errors a few pixels wide are ignored. Of the rest, each boundary segment that has to be redrawn costs the number of
vertices of its polygonal approximation, and each region that borders no correct pixel costs one click.

Needs OpenCV and scikit-image (the extra ``metrics``). About 0.1 s per megapixel, most of it for the skeleton of the
ground truth, more for complex shapes: `parallel.measure_all` uses several processes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from twofold.metrics.metric import Metric, MetricInput, mean_over_images
from twofold.metrics.saliency import FOREGROUND, Normalize, foreground, minmax_normalized, unnormalized

# Erosions by one pixel before an error counts.
RELAX = 5
# Largest distance of the polygonal approximation from the boundary, in pixels (Douglas & Peucker 1973).
TOLERANCE = 2.0

Mask = NDArray[np.bool_]


def human_correction_effort(p: Mask, g: Mask, relax: int = RELAX, tolerance: float = TOLERANCE) -> int:
    """Number of clicks to correct the predicted mask `p` to the true mask `g` (bool h w).

    ImportError when OpenCV or scikit-image is missing.
    """
    cv2, skeletonize = _libraries()
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

    def dilated(mask: Mask, times: int = 1) -> Mask:
        return cv2.dilate(mask.astype(np.uint8), cross, iterations=times).astype(bool)

    def regrown(mask: Mask, error: Mask, forbidden: Mask) -> Mask:
        """The pixels of `error` within `relax` steps of the eroded `mask` (geodesic dilation outside `forbidden`)."""
        for _ in range(relax):
            mask = dilated(mask) & ~forbidden
        return mask & error

    right, extra, missing = p & g, p & ~g, g & ~p
    core = cv2.erode((p | g).astype(np.uint8), cross, iterations=relax).astype(bool)
    extra = regrown(extra & core, extra, g)
    missing = regrown(missing & core, missing, p)
    # Missing skeleton pixels are thin structures that the prediction lacks: they count whatever their width.
    missing |= skeletonize(g).astype(bool) & ~right
    redraw = _efforts(extra, dilated(right | missing), tolerance)
    return redraw + _efforts(missing, dilated(~(right | extra | missing)), tolerance)


def _efforts(region: Mask, border: Mask, tolerance: float) -> int:
    """Polygon vertices of the contours of `region` along `border`, plus the number of components off the border."""
    cv2, _ = _libraries()
    found, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    if not found:
        return 0
    contours = [np.asarray(c).reshape(-1, 2) for c in found]
    points = np.concatenate(contours)
    flat = points[:, 1].astype(np.int64) * region.shape[1] + points[:, 0]
    # A pixel on several contours counts once.
    first = np.zeros(len(flat), dtype=bool)
    first[np.unique(flat, return_index=True)[1]] = True
    redrawn = first & border.reshape(-1)[flat]

    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    isolated = np.ones(count, dtype=bool)
    isolated[0] = False
    isolated[labels.reshape(-1)[flat[redrawn]]] = False

    corners, start = 0, 0
    for contour in contours:
        segments = _segments(contour, redrawn[start : start + len(contour)])
        corners += sum(len(cv2.approxPolyDP(s[:, None], tolerance, False)) for s in segments)
        start += len(contour)
    return corners + int(isolated.sum())


def _segments(contour: NDArray, redrawn: Mask) -> list[NDArray]:
    """The runs of redrawn points (n 2); the last run is joined to the first where they touch.

    The first run is appended in reversed order, as in the published code.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], redrawn, [False]]).astype(np.int8)))
    runs = [contour[a:b] for a, b in edges.reshape(-1, 2)]
    if len(runs) > 1 and np.abs(runs[0][0] - runs[-1][-1]).max() == 1:
        runs[-1] = np.concatenate([runs[-1], runs[0][::-1]])
        del runs[0]
    return runs


def _libraries() -> tuple:
    try:
        import cv2
        from skimage.morphology import skeletonize
    except ImportError as error:
        raise ImportError(
            f"the human correction effort needs {error.name}; pip install 'twofold[metrics]'"
        ) from error
    return cv2, skeletonize


def _hce(normalize: Normalize, threshold: float, inputs: MetricInput) -> int:
    p = inputs.scatter((inputs.cached(normalize) > threshold)[None])[0].bool().numpy()
    return human_correction_effort(p, inputs.scatter(inputs.cached(foreground)[None])[0].bool().numpy())


# Clicks, averaged over images. ``hce`` thresholds a mask at level 128 of 255 like the authors' code; ``hce_stretched``
# min-max normalizes it first and thresholds at one half like PySODMetrics. They agree for binary masks.
HCE: dict[str, Metric] = {
    "hce": mean_over_images("hce", "clicks", "lower", partial(_hce, unnormalized, FOREGROUND)),
    "hce_stretched": mean_over_images(
        "hce_stretched", "clicks", "lower", partial(_hce, minmax_normalized, 0.5)
    ),
}
