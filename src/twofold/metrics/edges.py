"""F-score of edges (Martin et al. 2004): at one threshold for the set (ODS), or at each image's best (OIS).

Predicted and true edge pixels within `reach` times the image's diagonal are matched one to one, as many as possible; a
matched pixel is correct. Published numbers come from MATLAB programs that minimise the cost of the assignment after
their own thinning: this implementation is experimental and has not been compared with them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, vector
from twofold.metrics.saliency import f_score

Mask = NDArray[np.bool_]

# Matching distance as a fraction of the diagonal, as for PASCAL-Context; NYUD-v2 uses 0.011.
REACH = 0.0075
# A ground truth pixel above this is an edge.
EDGE = 0.5


def edge_metrics(reach: float = REACH, thresholds: int = 99) -> dict[str, Metric]:
    """``ods`` and ``ois`` of edge probabilities in [0, 1] (1 h w), thresholded at k / (thresholds + 1) and thinned.

    ods   the best F over thresholds of the counts of all images together
    ois   F of the counts of all images together, each at its own best threshold

    A true edge is a pixel above 0.5. Needs scikit-image (the extra ``metrics``). Images without a valid pixel are
    skipped; in an image without a true edge every predicted edge is a false positive.
    """
    update = partial(_update, reach, thresholds)
    return {
        "ods": Metric("ods", "", "higher", update, compute_ods),
        "ois": Metric("ois", "", "higher", update, compute_ois),
    }


def edge_counts(right: Tensor, predicted: Tensor, positives: Tensor) -> Tensor:
    """One image's sums: matched, predicted and true pixels (t each), those at the best threshold (1 each), 0."""
    best = _f(right, predicted, positives).argmax()
    return vector(right, predicted, positives, right[best], predicted[best], positives[best], 0)


def count_matches(predicted: Mask, true: Mask, reach: float = REACH) -> int:
    """Size of the maximum matching between two masks' pixels (bool h w) within `reach` times the diagonal."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import KDTree

    a, b = np.argwhere(predicted), np.argwhere(true)
    if not len(a) or not len(b):
        return 0
    near = KDTree(a).query_ball_tree(KDTree(b), reach * float(np.hypot(*predicted.shape)))
    starts = np.cumsum([0, *(len(x) for x in near)])
    ends = np.fromiter((j for x in near for j in x), dtype=np.int32, count=starts[-1])
    graph = csr_array((np.ones(len(ends), dtype=np.int8), ends, starts), shape=(len(a), len(b)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _update(reach: float, thresholds: int, inputs: MetricInput) -> Tensor:
    if not inputs.count:
        return vector(torch.zeros(3 * thresholds + 3), 1)
    try:
        from skimage.morphology import thin
    except ImportError as error:
        raise ImportError(f"scores of edges need {error.name}; pip install 'twofold[metrics]'") from error
    p, d = (x[0].numpy() for x in inputs.filled())
    true = d > EDGE
    right, predicted = [], []
    for k in range(1, thresholds + 1):
        thinned = thin(p >= k / (thresholds + 1))
        right.append(count_matches(thinned, true, reach))
        predicted.append(int(thinned.sum()))
    positives = torch.full((thresholds,), float(true.sum()), dtype=torch.float64)
    return edge_counts(vector(*right), vector(*predicted), positives)


def _f(right: Tensor, predicted: Tensor, positives: Tensor) -> Tensor:
    return f_score(right / predicted.clamp(min=1), right / positives.clamp(min=1), 1.0)


def compute_ods(total: Tensor) -> float:
    """The score from the total of the updates; NaN when there is no true edge."""
    right, predicted, positives = total[:-4].chunk(3)
    return float(_f(right, predicted, positives).max()) if bool(positives.any()) else float("nan")


def compute_ois(total: Tensor) -> float:
    """The score from the total of the updates; NaN when there is no true edge."""
    return float(_f(*total[-4:-1])) if float(total[-2]) > 0 else float("nan")


EDGES: dict[str, Metric] = edge_metrics()
