"""Streets, squares and meadows under an open sky."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from twofold.render import objects
from twofold.render.camera import View, look_at
from twofold.render.meshes import (
    Mesh,
    box,
    grid_faces,
    join,
    smooth,
    tube,
)
from twofold.render.pieces import Part, Piece
from twofold.render.plants import bush, tree
from twofold.render.scene import Builder
from twofold.render.street_pieces import bench, car, fence, put_house
from twofold.render.textures import Rng, fbm

REACH = 55.0
"""Half the side of the ground, metres."""


class Ground:
    """A height field over [-REACH, REACH]^2, flat near the origin."""

    def __init__(self, rng: Rng, relief: float) -> None:
        self.n = 112
        t = np.linspace(-REACH, REACH, self.n)
        x, y = np.meshgrid(t, t, indexing="ij")
        far = np.clip((np.hypot(x, y) - 8) / REACH, 0, 1)
        self.z = (
            relief
            * (fbm(rng, 128, rng.uniform(2.2, 3.2))[: self.n, : self.n] - 0.5)
            * (0.04 + 2.2 * far**1.4)
        )
        self.t = t

    def mesh(self) -> Mesh:
        """The surface; texture coordinates fold back every few cells so that a small image covers
        everything.
        """
        x, y = np.meshgrid(self.t, self.t, indexing="ij")
        i, j = np.meshgrid(np.arange(self.n), np.arange(self.n), indexing="ij")
        step, fold = self.t[1] - self.t[0], 4
        uv = [step * np.abs((k + fold) % (2 * fold) - fold) for k in (i, j)]
        points = np.stack([x, y, self.z], -1).reshape(-1, 3)
        return smooth(points, grid_faces(self.n, self.n), np.stack(uv, -1).reshape(-1, 2).astype(float))

    def at(self, x: float, y: float) -> float:
        """Height at a place (bilinear)."""
        s = (self.n - 1) / (2 * REACH)
        a, b = np.clip((x + REACH) * s, 0, self.n - 1.001), np.clip((y + REACH) * s, 0, self.n - 1.001)
        i, j = int(a), int(b)
        u, v = a - i, b - j
        z = self.z
        return float(
            (z[i, j] * (1 - v) + z[i, j + 1] * v) * (1 - u)
            + (z[i + 1, j] * (1 - v) + z[i + 1, j + 1] * v) * u
        )


def _street(rng: Rng, b: Builder, ground: Ground) -> float:
    """A road along y with pavements, rows of houses, trees, cars and lamps;
    returns half the street's width.
    """
    road, walk = rng.uniform(2.6, 4.5), rng.uniform(1.5, 3.5)
    cells = 28
    step = 2 * REACH / cells
    for side, patterns, kind, x0, x1, lift in (
        (0, "asphalt asphalt asphalt tiles", "road", -road, road, 0.02),
        (-1, "tiles asphalt bricks", "terrain", -road - walk, -road, 0.14),
        (1, "tiles asphalt bricks", "terrain", road, road + walk, 0.14),
    ):
        blocks = [
            box((x1 - x0, step, lift + 0.3), ((x0 + x1) / 2, -REACH + step * (k + 0.5), -0.3))
            for k in range(cells)
        ]
        b.add_part(Part(join(blocks), patterns, "neutral"), b.add_instance(kind))
        del side
    if rng.random() < 0.6:
        marks = join([box((0.12, 1.6, 0.012), (0, y, 0.02)) for y in np.arange(-50, 50, 4.0)])
        b.add_part(Part(marks, "plain", "light"), b.add_instance("road"))
    edge = road + walk + rng.uniform(0, 2)
    for side in (-1, 1):
        y = -REACH + 6
        while y < REACH - 6:
            w, d = rng.uniform(5, 14), rng.uniform(6, 10)
            if rng.random() < 0.85:
                put_house(rng, b, w, d, (side * (edge + d / 2), y + w / 2, -0.2), np.pi / 2 * side * -1)
            elif rng.random() < 0.7:
                b.add_piece(tree(rng), (side * (edge + 3), y + w / 2, 0))
            y += w + (0 if rng.random() < 0.6 else rng.uniform(0.5, 5))
    for _ in range(int(rng.integers(1, 7))):
        side = rng.choice([-1, 1])
        b.add_piece(
            b.models.pick(rng, "car") or car(rng),
            (side * (road - 1.0), rng.uniform(-30, 30), 0.02),
            float(rng.choice([0, np.pi])) + rng.normal(0, 0.03),
        )
    for _ in range(int(rng.integers(0, 6))):
        b.add_piece(
            tree(rng),
            (rng.choice([-1, 1]) * (road + walk * 0.7), rng.uniform(-35, 35), 0.1),
            rng.uniform(0, 6),
        )
    for y in np.arange(-40, 40, 12.0):
        if rng.random() < 0.5:
            side, hgt = float(rng.choice([-1, 1])), rng.uniform(3, 6)
            pole = join([tube([(0, 0, 0), (0, 0, hgt), (-0.8 * side, 0, hgt + 0.2)], 0.06, 8)])
            b.add_part(
                Part(pole.moved((side * (road + 0.4), float(y), 0.1)), "plain", "dark"),
                b.add_instance("pole"),
            )
    for _ in range(int(rng.choice([0, 1, 1, 3]))):
        b.add_piece(
            b.models.pick(rng, "person") or objects.person(rng),
            (rng.choice([-1, 1]) * (road + walk * rng.uniform(0.2, 0.8)), rng.uniform(-15, 15), 0.14),
            rng.uniform(0, 6.3),
        )
    return road + walk


def _park(rng: Rng, b: Builder, ground: Ground) -> None:
    """Trees, bushes, rocks, benches, fences, a few houses far away."""

    def spot(near: float, far: float) -> tuple[float, float, float]:
        a, d = rng.uniform(0, 2 * np.pi), rng.uniform(near, far)
        x, y = d * np.cos(a), d * np.sin(a)
        return (float(x), float(y), ground.at(x, y))

    for _ in range(int(rng.integers(4, 16))):
        b.add_piece(tree(rng), spot(4, 38), rng.uniform(0, 6))
    for _ in range(int(rng.integers(1, 9))):
        b.add_piece(bush(rng), spot(2.5, 18), rng.uniform(0, 6))
    for _ in range(int(rng.integers(0, 7))):
        rock = objects.lump(rng, rng.uniform(0.3, 1.8, 3) * [1, 1, 0.7], rng.uniform(0.4, 1.2))
        b.add_piece(
            Piece("rock", [Part(rock, "cloudy marble", "neutral", roughness=0.9)], (1, 1)),
            spot(2.5, 20),
            rng.uniform(0, 6),
        )
    for _ in range(int(rng.integers(0, 3))):
        b.add_piece(bench(rng), spot(2.5, 9), rng.uniform(0, 6))
    for _ in range(int(rng.integers(0, 3))):
        x, y, z = spot(4, 14)
        b.add_part(
            fence(rng, rng.uniform(3, 9)).moved((x, y, z - 0.1), rng.uniform(0, 6)), b.add_instance("fence")
        )
    for _ in range(int(rng.integers(0, 6))):
        x, y, z = spot(16, 45)
        put_house(
            rng,
            b,
            rng.uniform(5, 12),
            rng.uniform(5, 9),
            (x, y, z - 1.0),
            float(np.arctan2(y, x) - np.pi / 2 + rng.normal(0, 0.4)),
        )
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        b.add_piece(b.models.pick(rng, "person") or objects.person(rng), spot(2.5, 9), rng.uniform(0, 6.3))


def _mountains(rng: Rng, b: Builder) -> None:
    """A ragged skyline at the edge of the ground."""
    n = 96
    a = np.linspace(0, 2 * np.pi, n)
    profile = fbm(rng, 128, 2.0)[0]
    h = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 128), profile) * rng.uniform(4, 22)
    h[-1] = h[0]
    rows = [
        np.stack([r * np.cos(a), r * np.sin(a), z * h - 2], -1) for r, z in ((52, 0.0), (60, 0.6), (70, 1.0))
    ]
    points = np.stack(rows, 1).reshape(-1, 3)
    uv = np.stack(
        [np.abs(np.arange(n) % 16 - 8)[:, None] * 3.0 + np.zeros((1, 3)), np.tile([0, 8, 20.0], (n, 1))], -1
    )
    b.add_part(
        Part(
            smooth(points, grid_faces(n, 3)[:, ::-1], uv.reshape(-1, 2)), "cloudy grass leaves", roughness=1.0
        ),
        b.add_instance("mountain"),
    )


def build_outdoor(rng: Rng, b: Builder) -> tuple[str, Callable[[Rng], View]]:
    """A street or a park; returns its name and the function that proposes cameras."""
    street = rng.random() < 0.55
    ground = Ground(rng, 0.0 if street else float(rng.choice([0.5, 3, 8])))
    b.add_part(
        Part(ground.mesh(), "grass grass grass asphalt tiles cloudy", roughness=0.95),
        b.add_instance("terrain"),
    )
    half = 6.0
    if street:
        half = _street(rng, b, ground)
    else:
        _park(rng, b, ground)
    if rng.random() < 0.4:
        _mountains(rng, b)

    def propose(r: Rng) -> View:
        """A walker: on the street looking mostly along it, in the park looking anywhere near the middle."""
        if street:
            x, y = r.uniform(-half, half) * 0.9, r.uniform(-18, 18)
            direction = np.pi / 2 * r.choice([-1, 1]) + r.normal(0, 0.5)
        else:
            a, d = r.uniform(0, 2 * np.pi), r.uniform(2, 9)
            x, y = d * np.cos(a), d * np.sin(a)
            direction = a + np.pi + r.normal(0, 0.6)
        eye = np.array([x, y, ground.at(x, y) + r.uniform(1.3, 2.2) + 0.1])
        if r.random() < 0.1:
            eye[2] += r.uniform(1, 5)
        target = eye[:2] + np.array([np.cos(direction), np.sin(direction)])
        return look_at(
            eye,
            target,
            r.uniform(48, 75),
            float(np.clip(r.normal(4, 6), -8, 25)),
            np.radians(r.normal(0, 1.5)),
        )

    return ("street" if street else "park"), propose
