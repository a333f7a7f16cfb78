"""F of edges (Martin et al. 2004): at one threshold for the set, or at each image's best.

An edge pixel that was said is right when it can be given a true one within `reach` times the image's diagonal that no
other was given; as many as possible are. Published numbers come from MATLAB programs that solve the assignment by
cost, after their own thinning: this one is experimental, and nobody has compared the two.
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

# Of the diagonal: PASCAL-Context; NYUD-v2 uses 0.011.
REACH = 0.0075
# True edges are drawn; above it a pixel is of one.
EDGE = 0.5


def edge_metrics(reach: float = REACH, thresholds: int = 99) -> dict[str, Metric]:
    """``ods`` and ``ois``, of probabilities of an edge in [0, 1] (1 h w) at k / (thresholds + 1), thinned to a line.

    ods   the best F of the counts of all images together, over thresholds
    ois   F of the counts of all images together, each at its own best threshold

    A true edge is a pixel above 0.5. Needs scikit-image (the extra ``metrics``). Images without a valid pixel are
    skipped; an image without a true edge counts what was said there as wrong.
    """
    update = partial(_update, reach, thresholds)
    return {
        "ods": Metric("ods", "", "higher", update, compute_ods),
        "ois": Metric("ois", "", "higher", update, compute_ois),
    }


def counted(right: Tensor, said: Tensor, there: Tensor) -> Tensor:
    """One image's part: pixels said and right, said, and true (t each, by threshold), then those at its best."""
    best = _f(right, said, there).argmax()
    return vector(right, said, there, right[best], said[best], there[best], 0)


def matched(said: Mask, true: Mask, reach: float = REACH) -> int:
    """How many pixels of two masks (bool h w) can be paired off within `reach` times the diagonal."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import KDTree

    a, b = np.argwhere(said), np.argwhere(true)
    if not len(a) or not len(b):
        return 0
    near = KDTree(a).query_ball_tree(KDTree(b), reach * float(np.hypot(*said.shape)))
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
    right, said = [], []
    for k in range(1, thresholds + 1):
        drawn = thin(p >= k / (thresholds + 1))
        right.append(matched(drawn, true, reach))
        said.append(int(drawn.sum()))
    there = torch.full((thresholds,), float(true.sum()), dtype=torch.float64)
    return counted(vector(*right), vector(*said), there)


def _f(right: Tensor, said: Tensor, there: Tensor) -> Tensor:
    return f_score(right / said.clamp(min=1), right / there.clamp(min=1), 1.0)


def compute_ods(total: Tensor) -> float:
    """From the total of the updates; NaN when there is no true edge."""
    right, said, there = total[:-4].chunk(3)
    return float(_f(right, said, there).max()) if bool(there.any()) else float("nan")


def compute_ois(total: Tensor) -> float:
    """From the total of the updates; NaN when there is no true edge."""
    return float(_f(*total[-4:-1])) if float(total[-2]) > 0 else float("nan")


EDGES: dict[str, Metric] = edge_metrics()
