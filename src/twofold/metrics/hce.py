"""Human correction efforts: an estimate of the clicks needed to correct a mask (Qin et al. 2022, DIS).

Errors of a few pixels are ignored. Of the rest, each segment of boundary that has to be redrawn counts
the corners of the polygon that draws it, and each region that touches nothing right counts one click.

Needs OpenCV and scikit-image (the extra ``metrics``). Some 0.1 s a megapixel, most of it for the skeleton of the truth,
and more for wilder shapes: `parallel.measure_all` spreads images over processes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from twofold.metrics.metric import Metric, MetricInput, mean_over_images
from twofold.metrics.saliency import FOREGROUND, Normalize, foreground, minmax_normalized, unnormalized

# Errors of so many pixels' width are forgiven.
RELAX = 5
# Corners are those of the polygon that stays this near to the boundary, in pixels (Douglas & Peucker 1973).
TOLERANCE = 2.0

Mask = NDArray[np.bool_]


def human_correction_effort(p: Mask, g: Mask, relax: int = RELAX, tolerance: float = TOLERANCE) -> int:
    """How many clicks turn the mask `p` into the true one, `g` (bool h w).

    ImportError, with what to install, without OpenCV or scikit-image.
    """
    cv2, skeletonize = _libraries()
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

    def dilated(mask: Mask, times: int = 1) -> Mask:
        return cv2.dilate(mask.astype(np.uint8), cross, iterations=times).astype(bool)

    def regrown(mask: Mask, error: Mask, forbidden: Mask) -> Mask:
        """What is left of an error where it is thick, and all of it that hangs together with that nearby."""
        for _ in range(relax):
            mask = dilated(mask) & ~forbidden
        return mask & error

    right, extra, missing = p & g, p & ~g, g & ~p
    core = cv2.erode((p | g).astype(np.uint8), cross, iterations=relax).astype(bool)
    extra = regrown(extra & core, extra, g)
    missing = regrown(missing & core, missing, p)
    # A part of the skeleton that is missing is an object's limb that is: it counts however thin.
    missing |= skeletonize(g).astype(bool) & ~right
    redraw = _efforts(extra, dilated(right | missing), tolerance)
    return redraw + _efforts(missing, dilated(~(right | extra | missing)), tolerance)


def _efforts(region: Mask, border: Mask, tolerance: float) -> int:
    """Corners of the contours of `region` where they run along `border`, and regions of which no contour does."""
    cv2, _ = _libraries()
    found, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    if not found:
        return 0
    contours = [np.asarray(c).reshape(-1, 2) for c in found]
    points = np.concatenate(contours)
    flat = points[:, 1].astype(np.int64) * region.shape[1] + points[:, 0]
    # A pixel counts once, however many contours pass through it.
    first = np.zeros(len(flat), dtype=bool)
    first[np.unique(flat, return_index=True)[1]] = True
    redrawn = first & border.reshape(-1)[flat]

    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    alone = np.ones(count, dtype=bool)
    alone[0] = False
    alone[labels.reshape(-1)[flat[redrawn]]] = False

    corners, start = 0, 0
    for contour in contours:
        segments = _segments(contour, redrawn[start : start + len(contour)])
        corners += sum(len(cv2.approxPolyDP(s[:, None], tolerance, False)) for s in segments)
        start += len(contour)
    return corners + int(alone.sum())


def _segments(contour: NDArray, redrawn: Mask) -> list[NDArray]:
    """The runs of points (n 2) that are redrawn; the last goes on into the first where they touch.

    It is joined to the first one turned round, as in the published program.
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


# A mean over images of clicks. ``hce`` thresholds a mask at level 128 of 255, as the authors' program does;
# ``hce_stretched`` min-max normalizes it first and thresholds at one half, as
# PySODMetrics does: the same for masks that are only 0 and 1.
HCE: dict[str, Metric] = {
    "hce": mean_over_images("hce", "clicks", "lower", partial(_hce, unnormalized, FOREGROUND)),
    "hce_stretched": mean_over_images(
        "hce_stretched", "clicks", "lower", partial(_hce, minmax_normalized, 0.5)
    ),
}
