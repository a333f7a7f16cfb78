"""Object scenes: things on a table or the floor in front of walls, and standing figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from twofold.render import furniture as f, objects
from twofold.render.camera import View
from twofold.render.meshes import box, sheet
from twofold.render.pieces import Part, Piece
from twofold.render.scene import Builder
from twofold.render.textures import Rng

_SURFACE = "wood wood plain tiles marble cloudy fabric stripes cells bricks carpet flowers"


def _backdrop(rng: Rng, b: Builder, size: float, floor: float) -> None:
    """A floor and one wall, two walls, a seamless paper roll, or nothing behind."""
    style = int(rng.integers(5))
    if style == 4:
        t = np.linspace(0, np.pi / 2, 10)
        y = np.concatenate([[-size], 0.5 * size + 0.3 * size * np.sin(t), [0.8 * size]])
        z = np.concatenate([[0], 0.3 * size * (1 - np.cos(t)), [size * 1.2]]) + floor
        x = np.linspace(-1.2 * size, 1.2 * size, 3)
        points = np.stack([np.stack([np.full_like(y, v), y, z], -1) for v in x], 0)
        b.add_part(Part(sheet(points), "plain plain cloudy stripes"), b.add_instance("wall"))
        return
    b.add_part(
        Part(box((2.6 * size, 2.6 * size, 0.1), (0, 0, floor - 0.1)), _SURFACE), b.add_instance("floor")
    )
    if style == 3:
        return
    y = rng.uniform(0.35, 0.9) * size
    b.add_part(Part(box((2.6 * size, 0.1, 1.6 * size), (0, y, floor)), _SURFACE), b.add_instance("wall"))
    if rng.random() < 0.4:
        w = rng.uniform(0.3, 0.9)
        image = box(
            (w, 0.02, w * rng.uniform(0.6, 1.3)),
            (rng.uniform(-0.6, 0.6) * size, y - 0.06, floor + rng.uniform(0.2, 0.45) * size),
        )
        b.add_part(Part(image, texture_kind="poster"), b.add_instance("picture"))
    if style == 1:
        side = float(rng.choice([-1, 1]))
        b.add_part(
            Part(
                box((0.1, 2.6 * size, 1.6 * size), (side * rng.uniform(0.6, 1.1) * size, 0, floor)), _SURFACE
            ),
            b.add_instance("wall"),
        )


def _make(rng: Rng, b: Builder, name: str) -> Piece:
    """A catalogue model with some probability, where there is one, else a procedural piece."""
    return b.models.pick(rng, name) or getattr(f, name)(rng)


def _still_life(rng: Rng, b: Builder) -> tuple[float, float]:
    """Things on a table; returns the height of the table and the extent of the group."""
    name = "dining_table" if rng.random() < 0.6 else "coffee_table"
    table = _make(rng, b, name)
    _backdrop(rng, b, 2.2, 0.0)
    b.add_piece(table, (0, 0, 0), rng.normal(0, 0.3))
    group = min(table.size) / 2
    _spread(rng, b, table.top, group, int(rng.integers(2, 9)), 1.0)
    return table.top, group


def _floor_group(rng: Rng, b: Builder) -> tuple[float, float]:
    """Larger things standing on the floor."""
    _backdrop(rng, b, rng.uniform(2.2, 3.2), 0.0)
    group = rng.uniform(0.5, 1.0)
    _spread(rng, b, 0.0, group, int(rng.integers(2, 7)), rng.uniform(1.5, 2.8))
    return 0.0, group


def _spread(rng: Rng, b: Builder, z: float, radius: float, count: int, scale: float) -> None:
    """Place `count` things without overlap within a disc."""
    placed: list[tuple[float, float, float]] = []
    for _ in range(count):
        thing = b.models.pick(rng, "small", 0.5) or objects.small_object(rng)
        s = scale * rng.uniform(0.8, 1.3)
        r = s * max(thing.size) / 2
        for _ in range(8):
            a, d = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.random()) * 0.9
            x, y = float(d * np.cos(a)), float(d * np.sin(a))
            if all(np.hypot(x - px, y - py) > 0.9 * (r + q) for px, py, q in placed):
                placed.append((x, y, r))
                parts = [p.scaled(s) for p in thing.parts]
                b.add_piece(Piece(thing.kind, parts, thing.size), (x, y, z), rng.uniform(0, 2 * np.pi))
                break


def _figure(rng: Rng, b: Builder) -> tuple[float, float]:
    """One to three people in front of a backdrop, perhaps with furniture."""
    _backdrop(rng, b, rng.uniform(2.5, 4), 0.0)
    for k in range(int(rng.choice([1, 1, 1, 2, 3]))):
        b.add_piece(
            b.models.pick(rng, "person") or objects.person(rng),
            ((k - 0.5) * rng.uniform(0.6, 0.9), rng.normal(0, 0.2), 0),
            rng.normal(0, 0.9),
        )
    if rng.random() < 0.6:
        piece = _make(rng, b, ("chair", "cabinet", "shelf", "coffee_table")[int(rng.integers(4))])
        b.add_piece(
            piece,
            (float(rng.choice([-1, 1])) * rng.uniform(1.0, 1.5), rng.uniform(0.1, 0.6), 0),
            rng.normal(0, 0.5),
        )
    return 0.0, 1.0


def _furniture(rng: Rng, b: Builder) -> tuple[float, float]:
    """A single piece or two of furniture."""
    _backdrop(rng, b, rng.uniform(2.5, 3.5), 0.0)
    names = ("chair", "office_chair", "armchair", "sofa", "cabinet", "shelf", "dining_table", "desk")
    x = -0.6
    for _ in range(int(rng.integers(1, 3))):
        piece = _make(rng, b, names[int(rng.integers(len(names)))])
        b.add_piece(piece, (x + piece.size[0] / 2, rng.normal(0, 0.15), 0), rng.normal(0, 0.7))
        x += piece.size[0] + rng.uniform(0.2, 0.5)
    return 0.3, 0.9


def build_object_scene(rng: Rng, b: Builder) -> tuple[str, Callable[[Rng], View]]:
    """An object scene; returns its name and the function that proposes cameras."""
    style = str(rng.choice(["still life", "group", "figure", "furniture"], p=[0.42, 0.22, 0.18, 0.18]))
    maker = {"still life": _still_life, "group": _floor_group, "figure": _figure, "furniture": _furniture}[
        style
    ]
    z, extent = maker(rng, b)
    if rng.random() < 0.5:
        side = rng.uniform(0.3, 1.2)
        at = (rng.uniform(-1.5, 1.5), rng.uniform(-2.5, -0.5), rng.uniform(2.6, 3.6))
        b.add_light(
            box((side, side, 0.02), at),
            np.array([1, rng.uniform(0.75, 1), rng.uniform(0.5, 1)]) * rng.uniform(4, 16) / side,
        )

    def propose(r: Rng) -> View:
        """In front of the group, a little above it."""
        a = np.radians(r.uniform(-125, -55))
        if style == "figure":
            d, up, aim = r.uniform(1.8, 4.2), r.uniform(0.9, 1.7), r.uniform(0.75, 1.2)
        else:
            elevation = np.radians(r.uniform(8, 50))
            reach = max(extent, 0.35) * r.uniform(1.5, 3.0) + 0.25
            d, up, aim = reach * np.cos(elevation), z + reach * np.sin(elevation), z + r.uniform(0, 0.2)
        eye = (float(d * np.cos(a)), float(d * np.sin(a)), float(up))
        target = (r.normal(0, 0.12) * extent, r.normal(0, 0.12) * extent, float(aim))
        return View(eye, target, r.uniform(38, 62), np.radians(r.normal(0, 2)))

    return style, propose
