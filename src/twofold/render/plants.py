"""Plants: leaves, grass, potted plants, bushes and trees."""

from __future__ import annotations

import numpy as np

from twofold.render.meshes import (
    Mesh,
    cards,
    join,
    lathe,
    sheet,
    tube,
)
from twofold.render.pieces import GLAZED, Part, Piece
from twofold.render.textures import Rng


def foliage(rng: Rng, count: int, spread: float, height: float, leaf: float) -> Mesh:
    """Leaves on arched stems growing from the origin."""
    az, el = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.3, 1.5, count)
    length = rng.uniform(0.4, 1, count)
    out = np.stack([np.cos(az), np.sin(az), np.zeros(count)], 1)
    centre = out * (spread * length * np.cos(el))[:, None]
    centre[:, 2] = height * length * np.sin(el)
    droop = rng.uniform(-0.6, 0.7, count)
    tip = out * np.cos(droop)[:, None] + [0, 0, 1.0] * np.sin(droop)[:, None]
    size = leaf * rng.uniform(0.6, 1.3, count)
    side = np.cross(tip, rng.normal(size=(count, 3)) * 0.3 + [0, 0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    return cards(centre, tip * size[:, None], side * (size * rng.uniform(0.2, 0.5))[:, None])


def blades(rng: Rng, count: int, length: float, width: float) -> Mesh:
    """Long bent leaves from one root (spider plant, palm)."""
    t = np.linspace(0, 1, 7)
    leaves = []
    for _ in range(count):
        el, bend, size = rng.uniform(0.5, 1.5), rng.uniform(0.1, 0.8), length * rng.uniform(0.5, 1)
        x, z = t * size * np.cos(el), t * size * np.sin(el) - bend * size * t**2 * 0.6
        w = width * np.sin(np.pi * np.clip(0.9 * t + 0.08, 0, 1)) + 1e-4
        points = np.stack([np.stack([x, s * w, z], 1) for s in (-0.5, 0.0, 0.5)], 1)
        leaves.append(sheet(points).moved(turn=rng.uniform(0, 2 * np.pi)))
    return join(leaves)


def potted_plant(rng: Rng, scale: float = 1.0) -> Piece:
    """A pot with leaves; scale 1 = on a table, 3 = on the floor."""
    r, h = rng.uniform(0.05, 0.08) * scale, rng.uniform(0.08, 0.14) * scale
    pot = lathe(np.array([0, 0.7, 1, 0.88, 0.85, 0]) * r, np.array([0, 0, 1, 1, 0.85, 0.85]) * h, 24)
    if rng.random() < 0.5:
        green = blades(rng, int(rng.integers(10, 26)), 0.28 * scale, 0.025 * scale)
    else:
        green = foliage(rng, int(rng.integers(40, 140)), 0.16 * scale, 0.3 * scale, 0.035 * scale)
    parts = [Part(pot, GLAZED, kind="vase"), Part(green.moved((0, 0, h * 0.85)), "leaves")]
    return Piece("plant", parts, (0.3 * scale, 0.3 * scale))


def tree(rng: Rng) -> Piece:
    """A trunk with a few boughs and a crown of leaf cards; or a conifer."""
    h = rng.uniform(3, 8)
    trunk = [
        tube(
            [
                (0, 0, -0.3),
                (rng.normal(0, 0.1), rng.normal(0, 0.1), h * 0.5),
                (rng.normal(0, 0.2), 0, h * 0.85),
            ],
            [0.045 * h, 0.03 * h, 0.01 * h],
            10,
        )
    ]
    count = int(rng.integers(1200, 2600))
    if rng.random() < 0.25:
        t = rng.random(count) ** 0.7
        a, r = rng.uniform(0, 2 * np.pi, count), (1 - t) * h * 0.22 * rng.uniform(0.3, 1, count) + 0.05
        centre = np.stack([r * np.cos(a), r * np.sin(a), h * (0.15 + 0.85 * t)], 1)
    else:
        blobs = rng.normal(size=(int(rng.integers(3, 8)), 3)) * [0.16 * h, 0.16 * h, 0.1 * h] + [
            0,
            0,
            0.75 * h,
        ]
        for p in blobs:
            trunk.append(tube([(0, 0, h * 0.4), tuple(p * 0.8)], [0.015 * h, 0.005 * h], 6))
        d = rng.normal(size=(count, 3))
        d *= (rng.uniform(0.55, 1, count) / np.linalg.norm(d, axis=1))[:, None]
        centre = blobs[rng.integers(len(blobs), size=count)] + d * h * rng.uniform(0.13, 0.2)
    size = h * rng.uniform(0.011, 0.024) * rng.uniform(0.6, 1.4, count)
    tip, side = rng.normal(size=(2, count, 3))
    side = np.cross(tip, side)
    tip, side = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (tip, side))
    crown = cards(centre, tip * size[:, None], side * (0.6 * size)[:, None])
    return Piece("tree", [Part(join(trunk), "wood cloudy", "dark"), Part(crown, "leaves")], (1, 1))


def bush(rng: Rng) -> Piece:
    """A low ball of leaves."""
    s = rng.uniform(0.5, 1.3)
    return Piece(
        "plant",
        [Part(foliage(rng, int(rng.integers(150, 400)), s * 0.7, s, 0.07 * s), "leaves")],
        (s, s),
    )
