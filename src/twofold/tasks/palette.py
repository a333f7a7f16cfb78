"""Colours for classes: as far from each other as can be, and the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

MOST = 512
_FAR = 1 << 30
_TRIED = 3  # lattices, of which the best one after all moves is taken
# Steps, in 255ths, by which a colour may move away from its neighbours, and how often all of them try.
_STEPS, _ROUNDS = (32, 16, 8, 4, 2, 1), 20


def palette(n: int) -> Tensor:
    """``n`` colours, float32 ``n 3`` in [0, 1] and whole 255ths, whose least distance is as large as was found.

    Spheres in a cube: of the densest regular lattices that have ``n`` points or some more, those far from each other
    are chosen, then each colour moves in turn to where its nearest neighbour is farther, until none can. Integers only,
    so nothing depends on the machine. The least distance is that of the best packings known where those are lattices
    (8: 1.00, 27: 0.50, 64: 0.33) and a few percent less elsewhere (38: 0.41). Any first few of the colours are far from
    each other too; another ``n`` gives other colours.

    Raises:
        ValueError: ``n`` is not from 1 to `MOST`.
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"a palette has 1 to {MOST} colours, not {n}")
    return torch.from_numpy(_found(n).astype(np.float32)) / 255


@lru_cache(maxsize=32)
def _found(n: int) -> np.ndarray:
    if n == 1:
        return np.zeros((1, 3))
    begun = sorted((_chosen(points, n) for points in _lattices(n)), key=_least, reverse=True)
    best = max(map(_settled, begun[:_TRIED]), key=_least)
    darkest = np.lexsort((*best.T, best.sum(1)))
    return _chosen(best[darkest], n)


def least_distance(colors: Tensor) -> float:
    """Between any two of the colours (``n 3``, n at least 2), in their own unit."""
    return float(torch.pdist(colors.double()).min())


def _lattices(n: int) -> Iterator[np.ndarray]:
    """Cubic, face-centred and body-centred lattices in the cube of 255, of ``n`` to three times ``n`` points."""
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
    """The least squared distance of two of the points."""
    return int((_squares(points, points) + np.eye(len(points), dtype=int) * _FAR).min())


def _chosen(points: np.ndarray, n: int) -> np.ndarray:
    """The first point, then always the one farthest from those chosen (Gonzalez 1985)."""
    near, order = _squares(points, points[:1])[:, 0], [0]
    for _ in range(n - 1):
        order.append(int(near.argmax()))
        near = np.minimum(near, _squares(points, points[order[-1:]])[:, 0])
    return points[order]


def _settled(points: np.ndarray) -> np.ndarray:
    """Each point moved, by smaller and smaller steps, to where its nearest neighbour is farther."""
    points = points.copy()
    around = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = points.copy()
            for i in range(len(points)):
                places = np.clip(points[i] + step * around, 0, 255)
                away = _squares(places, points)
                away[:, i] = _FAR
                near = away.min(1)
                # The place in the middle is where it is: a tie leaves it there.
                if near.max() > near[13]:
                    points[i] = places[near.argmax()]
            if (points == before).all():
                break
    return points
