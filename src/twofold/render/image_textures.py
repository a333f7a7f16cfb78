"""Images that are not periodic: posters, paintings, screens, facades, book spines.
Texture without geometry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.render.textures import ImageArray, Rng, color, fbm, ramp, texture


def letters(
    rng: Rng, image: NDArray, rows: int, ink: NDArray, box: tuple[float, float, float, float]
) -> None:
    """Draw letter-like marks (strokes in a 3 x 5 cell) into `image` within box = (top, left, bottom,
    right) in [0, 1].
    """
    h, w = image.shape[:2]
    top, left, bottom, right = (int(v * s) for v, s in zip(box, (h, w, h, w), strict=True))
    line = max((bottom - top) // max(rows, 1), 4)
    cell = max(int(line * 0.7), 3)
    for y in range(top, bottom - cell, line):
        x, end = left, left + int((right - left) * rng.uniform(0.5, 1))
        while x + cell < end:
            if rng.random() < 0.85:
                glyph = np.kron(
                    rng.random((5, 3)) < 0.55, np.ones((max(cell // 6, 1), max(cell // 5, 1)), bool)
                )
                gh, gw = glyph.shape
                area = image[y : y + gh, x : x + gw]
                area[glyph[: area.shape[0], : area.shape[1]]] = ink
            x += max(cell * 3 // 4, 3)


def poster(rng: Rng, n: int = 128) -> ImageArray:
    """A poster, painting or cover: landscape, shaded spheres, blocks, a chequered floor in perspective, or
    print.
    """
    y, x = np.mgrid[0:n, 0:n] / n
    kind = str(rng.choice(["landscape", "spheres", "blocks", "floor", "print", "abstract"]))
    ground = np.broadcast_to(color(rng), (n, n, 3)).copy()
    if kind == "landscape":
        ground = ramp(y, np.stack([color(rng, "light"), color(rng)]))
        for k in range(3):
            edge = 0.35 + 0.2 * k + 0.3 * (fbm(rng, n, 2.5)[k] - 0.5)
            ground[y > edge[None, :]] = color(rng)
    elif kind == "spheres":
        for _ in range(int(rng.integers(1, 6))):
            cx, cy, r = rng.random(), rng.random(), rng.uniform(0.08, 0.3)
            dx, dy = (x - cx) / r, (y - cy) / r
            z = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
            light = np.clip(0.5 * z - 0.5 * dx - 0.6 * dy, 0.05, 1)
            ground = np.where((dx**2 + dy**2 < 1)[..., None], color(rng) * light[..., None], ground)
    elif kind == "blocks":
        for _ in range(int(rng.integers(3, 12))):
            a, b = np.sort(rng.random(2)), np.sort(rng.random(2))
            ground[(x > a[0]) & (x < a[1]) & (y > b[0]) & (y < b[1])] = color(rng)
    elif kind == "floor":
        horizon = rng.uniform(0.3, 0.6)
        depth = 1 / np.clip(y - horizon, 0.02, 1)
        check = (np.floor(depth * 1.5) + np.floor((x - 0.5) * depth * 3)).astype(int) % 2
        ground = np.where((y > horizon)[..., None], np.stack([color(rng), color(rng)])[check], ground)
    elif kind == "abstract":
        ground = np.array(texture(rng).image[:n, :n])
    if kind == "print" or rng.random() < 0.35:
        ink = color(rng, "dark") if ground.mean() > 0.2 else color(rng, "light")
        letters(rng, ground, int(rng.integers(1, 12)), ink, (rng.uniform(0.05, 0.6), 0.08, 0.95, 0.92))
    if rng.random() < 0.4:
        m = max(int(n * rng.uniform(0.02, 0.1)), 1)
        frame = color(rng)
        ground[:m], ground[-m:], ground[:, :m], ground[:, -m:] = frame, frame, frame, frame
    return np.clip(ground, 0.02, 0.92).astype(np.float32)


def spines(rng: Rng, n: int = 128) -> ImageArray:
    """A patchwork of upright bands with marks: books take their colours from different places in it."""
    image = np.zeros((n, n, 3))
    x = 0
    while x < n:
        w = int(rng.integers(4, 12))
        image[:, x : x + w] = color(rng)
        if rng.random() < 0.6:
            y = int(rng.integers(0, n - 24))
            image[y : y + int(rng.integers(4, 24)), x + 1 : x + w - 1] = color(rng)
        x += w
    return np.clip(image, 0.02, 0.92).astype(np.float32)


def facade(rng: Rng, floors: int, bays: int, shop: bool) -> ImageArray:
    """The front of a house: wall pattern, windows with frames and panes, perhaps a shop below."""
    n = 256
    wall = texture(rng, "bricks plain plain cloudy tiles", str(rng.choice(["any", "light", "neutral"])))
    image = (
        np.tile(wall.image, (2, 2, 1))
        if rng.random() < 0.7
        else np.kron(wall.image, np.ones((2, 2, 1), np.float32))
    )
    image = image[:n, :n].astype(np.float64)
    h, w = n / floors, n / bays
    ww, wh = rng.uniform(0.35, 0.75), rng.uniform(0.45, 0.75)
    pane, frame, blind = color(rng, "dark"), color(rng, "light"), color(rng)
    for f in range(floors):
        for b in range(bays):
            y0, y1 = int((f + 0.5 - wh / 2) * h), int((f + 0.5 + wh / 2) * h)
            x0, x1 = int((b + 0.5 - ww / 2) * w), int((b + 0.5 + ww / 2) * w)
            if shop and f == floors - 1:
                y0, y1, x0, x1 = int((f + 0.25) * h), n, int((b + 0.05) * w), int((b + 0.95) * w)
            image[y0:y1, x0:x1] = frame
            m = max(int(w * 0.03), 1)
            image[y0 + m : y1 - m, x0 + m : x1 - m] = (
                blind if rng.random() < 0.2 else pane * rng.uniform(0.6, 1.6)
            )
            middle = (x0 + x1) // 2
            image[y0:y1, middle : middle + m] = frame
    if shop:
        y = int((floors - 1) * h)
        image[y : y + int(0.22 * h)] = color(rng)
        letters(rng, image, 1, color(rng, "light"), (y / n, 0.1, (y + 0.25 * h) / n, 0.9))
    return np.clip(image, 0.02, 0.92).astype(np.float32)
