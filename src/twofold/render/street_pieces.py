"""What stands outdoors: cars, houses, benches and fences."""

from __future__ import annotations

import numpy as np

from twofold.render import image_textures
from twofold.render.meshes import (
    box,
    cylinder,
    join,
    rounded,
)
from twofold.render.pieces import Part, Piece
from twofold.render.scene import Builder
from twofold.render.textures import Rng


def car(rng: Rng) -> Piece:
    """A parked car, front toward -y."""
    length, width, h = rng.uniform(3.6, 4.8), rng.uniform(1.65, 1.85), rng.uniform(1.4, 1.65)
    body = rounded((width, length, h * 0.55), (0, 0, 0.22), 0.3)
    cabin = rounded((width * 0.86, length * 0.55, h * 0.55), (0, length * 0.06, h * 0.45), 0.45)
    wheels = []
    for x in (-1, 1):
        for y in (-0.31, 0.31):
            wheel = cylinder(0.32, 0.2, 20).rotated(np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]))
            wheels.append(wheel.moved((x * width / 2 - 0.1, y * length, 0.32)))
    return Piece(
        "car",
        [
            Part(body, "plain", "any", roughness=0.25),
            Part(cabin, "plain", "dark", roughness=0.15),
            Part(join(wheels), "plain", "dark"),
        ],
        (width, length),
    )


def house(rng: Rng, width: float, depth: float) -> list[Part]:
    """A house whose front faces -y: facade image, roof, and real relief (sills, balconies, door
    step).
    """
    floors, bays = int(rng.integers(2, 7)), max(2, int(width / rng.uniform(2.2, 3.2)))
    h = floors * rng.uniform(2.7, 3.3)
    parts = [Part(box((width, depth, h)), "facade")]
    if rng.random() < 0.5:
        r = rng.uniform(0.8, 3)
        a = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, 0, 1], [1, 0, 1.0]]) * [
            width / 2 + 0.2,
            depth / 2 + 0.3,
            r,
        ] + [0, 0, h]
        faces = np.array([[0, 1, 5], [0, 5, 4], [2, 3, 4], [2, 4, 5], [1, 2, 5], [3, 0, 4]])
        from twofold.render.meshes import flat

        parts.append(Part(flat(a, faces, a[:, :2] - a[:, :2].min(0)), "tiles bricks wood plain", "dark"))
    else:
        parts.append(Part(box((width + 0.3, depth + 0.3, rng.uniform(0.2, 0.6)), (0, 0, h)), "plain asphalt"))
    relief = []
    for k in range(floors):
        if rng.random() < 0.35:
            relief.append(box((width, 0.12, 0.12), (0, -depth / 2 - 0.04, h * (k + 1) / floors - 0.1)))
        if k and rng.random() < 0.3:
            x = (int(rng.integers(bays)) + 0.5) / bays * width - width / 2
            z = h * k / floors + 0.05
            relief += [
                box((1.6, 0.8, 0.12), (x, -depth / 2 - 0.4, z)),
                box((1.6, 0.05, 0.9), (x, -depth / 2 - 0.78, z)),
            ]
    if rng.random() < 0.4:
        relief.append(box((width * 0.9, 1.0, 0.06), (0, -depth / 2 - 0.5, h / floors - 0.3)))
    if relief:
        parts.append(Part(join(relief), "plain stripes", "light"))
    parts[0] = Part(parts[0].mesh, f"{floors} {bays}", texture_kind="facade")
    return parts


def put_house(
    rng: Rng, b: Builder, width: float, depth: float, at: tuple[float, float, float], turn: float
) -> None:
    """A house as one instance; the facade image covers all its sides."""
    owner = b.add_instance("building")
    for part in house(rng, width, depth):
        atlas_tile = None
        if part.texture_kind == "facade" and not b.untextured:
            floors, bays = (int(v) for v in part.patterns.split())
            atlas_tile = b.add_atlas_tile(image_textures.facade(rng, floors, bays, rng.random() < 0.4))
        elif part.texture_kind == "facade":
            part = Part(part.mesh, "plain")
        b.add_part(part.moved(at, turn), owner, atlas_tile)


def bench(rng: Rng) -> Piece:
    """A garden bench."""
    w = rng.uniform(1.2, 1.9)
    slats = [box((w, 0.1, 0.03), (0, y, 0.43)) for y in (-0.18, -0.05, 0.08)] + [
        box((w, 0.03, 0.1), (0, 0.2, z)) for z in (0.55, 0.7)
    ]
    legs = [box((0.06, 0.45, 0.43), (s * (w / 2 - 0.15), 0, 0)) for s in (-1, 1)] + [
        box((0.05, 0.05, 0.4), (s * (w / 2 - 0.15), 0.23, 0.4)) for s in (-1, 1)
    ]
    return Piece("bench", [Part(join(slats), "wood plain"), Part(join(legs), "plain", "dark")], (w, 0.5))


def fence(rng: Rng, length: float) -> Part:
    """A picket fence along x."""
    n = int(length / rng.uniform(0.15, 0.4))
    bars = [
        box((0.07, 0.03, rng.uniform(0.9, 1.0)), (x, 0, 0)) for x in np.linspace(-length / 2, length / 2, n)
    ]
    return Part(
        join([*bars, box((length, 0.04, 0.07), (0, 0.03, 0.25)), box((length, 0.04, 0.07), (0, 0.03, 0.75))]),
        "wood plain",
    )
