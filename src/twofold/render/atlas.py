"""The texture atlas: all surface images of a scene in one image, so that every scene has one material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 1536
"""Width and height of the atlas in texels."""
_TEXEL = 0.008
_SMALLEST, _LARGEST = 24, 480


@dataclass
class AtlasTile:
    """A texture image and the rectangle of surface it covers. `period`: metres per repeat;
    0 = scaled to cover it once.
    """

    image: NDArray[np.float32]
    period: float
    width: float = 0.0
    height: float = 0.0

    def texels(self, shrink: float) -> tuple[int, int]:
        """Rows and columns of this tile in the atlas, before shrinking all tiles to fit."""
        floor = 0 if self.period else min(self.image.shape[0], 128)
        longest = max(self.width, self.height, 1e-6)
        size = np.clip(max(longest / _TEXEL, floor), _SMALLEST, _LARGEST) * shrink
        rows, columns = (max(int(size * s / longest), 8) for s in (self.height, self.width))
        return rows, columns

    def bake(self, rows: int, columns: int) -> NDArray[np.float32]:
        """The surface as rows columns 3, row 0 at v = 0, by bilinear interpolation (after halving where
        too fine).
        """
        image = self.image
        scale_v, scale_u = (
            (self.height / self.period, self.width / self.period) if self.period else (1.0, 1.0)
        )
        while image.shape[0] > 8 and image.shape[0] * min(scale_v / rows, scale_u / columns) > 1.6:
            image = 0.25 * (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2])
        n = image.shape[0]
        v = (np.arange(rows) + 0.5) / rows * scale_v * n - 0.5
        u = (np.arange(columns) + 0.5) / columns * scale_u * n - 0.5
        image = image[::-1] if not self.period else image  # images are stored top row first
        return _interpolate(
            _interpolate(image, v, self.period > 0).swapaxes(0, 1), u, self.period > 0
        ).swapaxes(0, 1)


def _interpolate(x: NDArray[np.float32], at: NDArray, wrap: bool) -> NDArray[np.float32]:
    """Rows of x at fractional positions."""
    i = np.floor(at).astype(int)
    f = (at - i).astype(np.float32)[:, None, None]
    a, b = (i % len(x), (i + 1) % len(x)) if wrap else (i.clip(0, len(x) - 1), (i + 1).clip(0, len(x) - 1))
    return x[a] * (1 - f) + x[b] * f


def pack(atlas_tiles: list[AtlasTile]) -> tuple[NDArray[np.float32], list[tuple[float, float, float, float]]]:
    """The atlas SIDE SIDE 3 (row 0 at v = 0) and for every atlas_tile its (u, v, width, height) in [0, 1], inset
    by a texel.
    """
    shrink = 1.0
    while (places := _shelves([s.texels(shrink) for s in atlas_tiles])) is None:
        shrink *= 0.85
    atlas = np.zeros((SIDE, SIDE, 3), np.float32)
    areas = []
    for atlas_tile, (y, x, h, w) in zip(atlas_tiles, places, strict=True):
        tile = np.pad(atlas_tile.bake(h, w), ((1, 1), (1, 1), (0, 0)), "edge")
        atlas[y : y + h + 2, x : x + w + 2] = tile
        areas.append(((x + 1) / SIDE, (y + 1) / SIDE, w / SIDE, h / SIDE))
    return atlas, areas


def _shelves(sizes: list[tuple[int, int]]) -> list[tuple[int, int, int, int]] | None:
    """Rectangles in rows of falling height, each with a border of one texel; None when they do not fit."""
    places: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(sizes)
    y = x = row = 0
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k][0]):
        h, w = sizes[k]
        if x + w + 2 > SIDE:
            y, x, row = y + row, 0, 0
        if y + h + 2 > SIDE or w + 2 > SIDE:
            return None
        places[k] = (y, x, h, w)
        x, row = x + w + 2, max(row, h + 2)
    return places
