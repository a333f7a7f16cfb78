"""Colours for classes with a large minimal distance, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

MOST = 512
_FAR = 1 << 30
_TRIED = 3  # lattices to refine; the best result is taken
# Step sizes, in 255ths, of the refinement, and its maximal number of rounds per step size.
_STEPS, _ROUNDS = (32, 16, 8, 4, 2, 1), 20


def palette(n: int) -> Tensor:
    """``n`` colours, float32 ``n 3`` in [0, 1] and multiples of 1/255, with a large minimal distance.

    Sphere packing in a cube: points of the densest regular lattices with at least ``n`` points are selected by farthest
    point sampling, then each colour moves to where its nearest neighbour is farther, until none can. Integers only, so
    the result does not depend on the machine. The minimal distance is that of the best known packings where those are
    lattices (8: 1.00, 27: 0.50, 64: 0.33) and a few percent less elsewhere (38: 0.41). The first few colours are far
    from each other too; another ``n`` gives other colours.

    Raises:
        ValueError: ``n`` is not from 1 to `MOST`.
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"a palette has 1 to {MOST} colours, not {n}")
    return torch.from_numpy(_optimised(n).astype(np.float32)) / 255


@lru_cache(maxsize=32)
def _optimised(n: int) -> np.ndarray:
    if n == 1:
        return np.zeros((1, 3))
    starts = sorted((_chosen(points, n) for points in _lattices(n)), key=_least, reverse=True)
    best = max(map(_refined, starts[:_TRIED]), key=_least)
    darkest = np.lexsort((*best.T, best.sum(1)))
    return _chosen(best[darkest], n)


def least_distance(colors: Tensor) -> float:
    """The minimal distance of two of the colours (``n 3``, n at least 2), in their own unit."""
    return float(torch.pdist(colors.double()).min())


def _lattices(n: int) -> Iterator[np.ndarray]:
    """Cubic, face-centred and body-centred lattices in the cube of edge 255, with ``n`` to ``3 n`` points."""
    for edge in range(2, 14):
        points = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
        odd = points.sum(1) % 2 == 1
        centred = (points % 2 == points[:, :1] % 2).all(1)
        for chosen in (points, points[~odd], points[odd], points[centred]):
            if n <= len(chosen) <= 3 * n:
                yield chosen * 255 // (edge - 1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.square(a[:, None] - b[None]).sum(-1)


def _least(points: np.ndarray) -> int:
    """The minimal squared distance of two of the points."""
    return int((_squares(points, points) + np.eye(len(points), dtype=int) * _FAR).min())


def _chosen(points: np.ndarray, n: int) -> np.ndarray:
    """Farthest point sampling from the first point (Gonzalez 1985)."""
    near, order = _squares(points, points[:1])[:, 0], [0]
    for _ in range(n - 1):
        order.append(int(near.argmax()))
        near = np.minimum(near, _squares(points, points[order[-1:]])[:, 0])
    return points[order]


def _refined(points: np.ndarray) -> np.ndarray:
    """Each point moved, by decreasing steps, to where its nearest neighbour is farther."""
    points = points.copy()
    around = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = points.copy()
            for i in range(len(points)):
                candidates = np.clip(points[i] + step * around, 0, 255)
                away = _squares(candidates, points)
                away[:, i] = _FAR
                near = away.min(1)
                # Candidate 13 is the current position: a tie leaves the point there.
                if near.max() > near[13]:
                    points[i] = candidates[near.argmax()]
            if (points == before).all():
                break
    return points
