"""Masks with something to get wrong, and predictions of them. Only numpy: an oracle has no torch."""

from __future__ import annotations

import numpy as np


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target, uint8 ``h w``, with edges of 60 to 100 pixels; the target is 0 or 255."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 100, 2)
    y, x = np.mgrid[:height, :width].astype(np.float64)

    def bumps(count: int) -> np.ndarray:
        total = np.zeros((height, width))
        for _ in range(count):
            row, column = rng.uniform(0.1, 0.9, 2) * (height, width)
            a, b = rng.uniform(3, 16, 2)
            total += rng.uniform(0.5, 1.5) * np.exp(-(((y - row) / a) ** 2) - ((x - column) / b) ** 2)
        return total

    field = bumps(6)
    truth = field > 0.6
    truth[int(rng.integers(5, 50)), 3:-3] = True  # a limb of one pixel
    noise = bumps(4) - bumps(4)
    soft = 1 / (1 + np.exp(-6 * (field - 0.6 + rng.uniform(0.1, 0.6) * noise)))
    if seed % 3 == 0:
        soft = (soft > 0.5).astype(np.float64)
    elif seed % 3 == 1:
        soft = 0.1 + 0.7 * soft
    return np.round(255 * soft).astype(np.uint8), 255 * truth.astype(np.uint8)
