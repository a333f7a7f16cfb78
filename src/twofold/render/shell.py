"""The empty room: floor, ceiling, walls with windows, doors and openings, skirting, curtains, images,
lamps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from twofold.render.furniture import curtain
from twofold.render.meshes import Mesh, ball, box, cylinder, join, rounded, tube
from twofold.render.pieces import Part
from twofold.render.scene import Builder
from twofold.render.textures import Rng

TURN = (0.0, -np.pi / 2, np.pi, np.pi / 2)
"""Turning a thing whose back faces +y so that it stands at the north, east, south or west wall."""


@dataclass
class Hole:
    """A hole in a wall: left, right, bottom, top in metres along the wall."""

    left: float
    right: float
    bottom: float
    top: float
    kind: str


@dataclass
class Room:
    """An axis-parallel room centred on the origin. `busy[i]`:
    stretches of wall i that are taken by holes and images.
    """

    width: float
    depth: float
    height: float
    holes: dict[int, list[Hole]] = field(default_factory=dict)
    busy: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: {k: [] for k in range(4)})

    def length(self, wall: int) -> float:
        """Length of a wall."""
        return self.width if wall % 2 == 0 else self.depth

    def away(self, wall: int) -> float:
        """Distance of a wall from the centre."""
        return (self.depth if wall % 2 == 0 else self.width) / 2

    def free(self, wall: int, left: float, right: float) -> bool:
        """Whether a stretch of wall is free."""
        return all(right < a or left > b for a, b in self.busy[wall])


def _wall(length: float, height: float, holes: list[Hole], y: float, thick: float = 0.14) -> Mesh:
    """A wall along x at depth y..y+thick with rectangular holes (sorted, disjoint along x)."""
    blocks, x = [], -length / 2 - thick
    for hole in sorted(holes, key=lambda h: h.left):
        blocks.append((x, hole.left, 0.0, height))
        blocks += [(hole.left, hole.right, 0.0, hole.bottom), (hole.left, hole.right, hole.top, height)]
        x = hole.right
    blocks.append((x, length / 2 + thick, 0.0, height))
    parts = []
    for a, b, low, high in blocks:
        if b - a > 1e-3 and high - low > 1e-3:
            block = box((b - a, thick, high - low), ((a + b) / 2, y + thick / 2, low))
            parts.append(block.shifted_uv((a, low)))  # one continuous pattern over all blocks
    return join(parts)


def _plan_holes(rng: Rng, room: Room) -> None:
    """Windows and doors: at least one wall has a window most of the time."""
    sunny = int(rng.integers(4))
    for wall in range(4):
        length, found = room.length(wall), []
        style = rng.random()
        if (wall == sunny and rng.random() < 0.85) or style < 0.15:
            count = int(rng.integers(1, 3)) if length > 3.5 else 1
            w = min(rng.uniform(0.8, 2.0), length / count - 0.6)
            french = rng.random() < 0.2
            low, high = (
                (0.02, 2.15) if french else (rng.uniform(0.7, 1.0), rng.uniform(1.9, room.height - 0.2))
            )
            for k in range(count):
                c = -length / 2 + length * (k + 0.5) / count + rng.uniform(-0.1, 0.1)
                found.append(Hole(c - w / 2, c + w / 2, low, high, "window"))
        elif style < 0.6:
            w = rng.uniform(0.75, 0.95) if rng.random() < 0.75 else rng.uniform(1.0, 1.8)
            c = rng.uniform(-1, 1) * (length / 2 - 0.65 * w)
            found.append(
                Hole(c - w / 2, c + w / 2, 0.0, rng.uniform(1.95, 2.15), "door" if w < 1 else "opening")
            )
        room.holes[wall] = found
        room.busy[wall] += [(h.left - 0.12, h.right + 0.12) for h in found]


def _window(rng: Rng, b: Builder, hole: Hole, y: float, turn: float) -> None:
    """Frame, bars, sill and perhaps curtains."""
    w, h, c = hole.right - hole.left, hole.top - hole.bottom, (hole.left + hole.right) / 2
    t = rng.uniform(0.04, 0.07)
    bars = [
        box((t, 0.06, h), (hole.left + t / 2, y + 0.07, hole.bottom)),
        box((t, 0.06, h), (hole.right - t / 2, y + 0.07, hole.bottom)),
    ]
    bars += [box((w, 0.06, t), (c, y + 0.07, hole.bottom)), box((w, 0.06, t), (c, y + 0.07, hole.top - t))]
    for k in range(int(rng.integers(0, 3))):
        bars.append(box((0.035, 0.05, h), (hole.left + w * (k + 1) / 3, y + 0.07, hole.bottom)))
    for k in range(int(rng.choice([0, 0, 1, 2]))):
        bars.append(box((w, 0.05, 0.035), (c, y + 0.07, hole.bottom + h * (k + 1) / 3)))
    if hole.bottom > 0.3:
        bars.append(box((w + 0.1, 0.16, 0.03), (c, y - 0.03, hole.bottom - 0.03)))
    b.add_part(Part(join(bars).moved(turn=turn), "plain wood", "light"), b.add_instance("window"))
    if rng.random() < 0.55:
        top = min(hole.top + rng.uniform(0.1, 0.25), 2.6)
        long = rng.random() < 0.7
        each = w * rng.uniform(0.2, 0.5)
        atlas_tile = None
        for side in (-1, 1):
            x = c + side * (w / 2 + 0.1 - each / 2 + 0.08)
            cloth = curtain(rng, each, top - (0.03 if long else max(hole.bottom - 0.25, 0.03)))
            low = top - (cloth.mesh.vertices[:, 2].max())
            atlas_tile = b.add_part(
                cloth.moved((x, y - 0.11, low)).moved((0, 0, 0), turn), b.add_instance("curtain"), atlas_tile
            )
        rod = tube([(c - w / 2 - 0.3, y - 0.1, top + 0.02), (c + w / 2 + 0.3, y - 0.1, top + 0.02)], 0.013, 8)
        b.add_part(Part(rod.moved(turn=turn), "plain wood", "any"), b.add_instance("curtain"))


def _door(rng: Rng, b: Builder, hole: Hole, y: float, turn: float) -> None:
    """A frame, and for a door its leaf (shut or ajar); behind an opening a wall two metres away."""
    w, h, c = hole.right - hole.left, hole.top, (hole.left + hole.right) / 2
    t, owner = 0.07, b.add_instance("door")
    frame = [
        box((t, 0.18, h + t), (hole.left - t / 2, y - 0.02 + 0.07, 0)),
        box((t, 0.18, h + t), (hole.right + t / 2, y + 0.05, 0)),
    ]
    frame.append(box((w, 0.18, t), (c, y + 0.05, h)))
    atlas_tile = b.add_part(Part(join(frame).moved(turn=turn), "plain wood", "light"), owner)
    if hole.kind == "door":
        leaf = [box((w - 0.01, 0.04, h - 0.01), (w / 2, 0, 0))]
        for k in range(int(rng.integers(0, 4))):
            leaf.append(box((w * 0.7, 0.055, h * 0.24), (w / 2, 0, h * (0.08 + 0.3 * k))))
        knob = ball(0.03, (w - 0.08, -0.06, h * 0.47))
        swing = -rng.uniform(0.3, 1.5) if rng.random() < 0.3 else 0.0
        at = (hole.left, y + 0.05, 0.0)
        same = atlas_tile if rng.random() < 0.5 else None
        b.add_part(Part(join(leaf).moved(at, swing).moved(turn=turn), "plain plain wood", "any"), owner, same)
        b.add_part(Part(knob.moved(at, swing).moved(turn=turn), "plain", roughness=0.3, metallic=0.8), owner)
        if swing == 0.0:
            return
    beyond = y + rng.uniform(1.2, 2.5)
    b.add_part(
        Part(box((w + 5, 0.1, 3.0), (c, beyond, 0)).moved(turn=turn), "plain cloudy tiles bricks", "light"),
        b.add_instance("wall"),
    )
    b.add_part(
        Part(
            box((w + 5, beyond - y, 0.02), (c, (y + beyond) / 2 + 0.14, -0.02)).moved(turn=turn),
            "wood tiles carpet",
        ),
        b.add_instance("floor"),
    )


def build_shell(rng: Rng, b: Builder, room: Room) -> None:
    """Add the shell of the room to the scene."""
    w, d, h = room.width, room.depth, room.height
    _plan_holes(rng, room)
    floor = Part(
        box((w + 0.3, d + 0.3, 0.1), (0, 0, -0.1)),
        "wood wood wood tiles carpet carpet plain marble cloudy",
        "any",
    )
    b.add_part(floor, b.add_instance("floor"))
    b.add_part(Part(box((w + 0.3, d + 0.3, 0.1), (0, 0, h)), "plain", "light"), b.add_instance("ceiling"))
    usual = Part(
        box((1, 1, 1)),
        "plain plain plain plain cloudy stripes flowers tiles bricks",
        str(rng.choice(["light", "light", "light", "neutral", "any"])),
    )
    atlas_tile = None
    for wall in range(4):
        mesh = _wall(room.length(wall), h, room.holes[wall], room.away(wall)).moved(turn=TURN[wall])
        accent = rng.random() < 0.15
        used = b.add_part(
            Part(mesh, usual.patterns, "any" if accent else usual.palette, roughness=0.85),
            b.add_instance("wall"),
            None if accent else atlas_tile,
        )
        atlas_tile = used if not accent and atlas_tile is None else atlas_tile
        for hole in room.holes[wall]:
            (_window if hole.kind == "window" else _door)(rng, b, hole, room.away(wall), TURN[wall])
    _trim(rng, b, room)
    _wall_images(rng, b, room)
    _lamps(rng, b, room)


def _trim(rng: Rng, b: Builder, room: Room) -> None:
    """Skirting boards, cornices, and now and then beams."""
    boards = []
    if rng.random() < 0.75:
        size = rng.uniform(0.06, 0.14)
        for wall in range(4):
            x = -room.length(wall) / 2
            for hole in [
                *sorted((g for g in room.holes[wall] if g.bottom < 0.2), key=lambda g: g.left),
                None,
            ]:
                end = room.length(wall) / 2 if hole is None else hole.left - 0.07
                if end - x > 0.02:
                    boards.append(
                        box((end - x, 0.02, size), ((x + end) / 2, room.away(wall) - 0.01, 0)).moved(
                            turn=TURN[wall]
                        )
                    )
                x = hole.right + 0.07 if hole else end
    if rng.random() < 0.3:
        for wall in range(4):
            boards.append(
                box((room.length(wall), 0.08, 0.08), (0, room.away(wall) - 0.04, room.height - 0.08)).moved(
                    turn=TURN[wall]
                )
            )
    if boards:
        b.add_part(Part(join(boards), "plain wood", "light"), b.add_instance("wall"))
    if rng.random() < 0.12:
        xs = np.linspace(-room.width / 2, room.width / 2, int(rng.integers(4, 8)))[1:-1]
        b.add_part(
            Part(join([box((0.15, room.depth, 0.18), (x, 0, room.height - 0.18)) for x in xs]), "wood"),
            b.add_instance("ceiling"),
        )


def _wall_images(rng: Rng, b: Builder, room: Room) -> None:
    """Framed images, posters, mirrors-without-mirror and clocks on free stretches of wall."""
    for wall in range(4):
        for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
            w, h = rng.uniform(0.25, 1.2), rng.uniform(0.25, 0.9)
            x = rng.uniform(-room.length(wall) / 2 + w, room.length(wall) / 2 - w)
            if not room.free(wall, x - w / 2, x + w / 2):
                continue
            room.busy[wall].append((x - w / 2 - 0.05, x + w / 2 + 0.05))
            z, y, owner = rng.uniform(1.2, 1.6), room.away(wall), b.add_instance("picture")
            if rng.random() < 0.12:
                clock = (
                    cylinder(0.16, 0.03, 28)
                    .rotated(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
                    .moved((x, y, z + 0.2))
                )
                b.add_part(Part(clock.moved(turn=TURN[wall]), texture_kind="poster"), owner)
                continue
            if rng.random() < 0.7:
                b.add_part(
                    Part(
                        box((w + 0.08, 0.03, h + 0.08), (x, y - 0.015, z - 0.04)).moved(turn=TURN[wall]),
                        "wood plain",
                    ),
                    owner,
                )
            b.add_part(
                Part(
                    box((w, 0.012, h), (x, y - 0.03, z)).moved(turn=TURN[wall]),
                    texture_kind="poster",
                    roughness=0.5,
                ),
                owner,
            )


def _lamps(rng: Rng, b: Builder, room: Room) -> None:
    """Ceiling lights: panels, globes or shades on a wire; off in a quarter of the rooms (then the windows
    must do).
    """
    has_window = any(h.kind == "window" for holes in room.holes.values() for h in holes)
    if has_window and rng.random() < 0.3:
        b.notes["lit"] = "daylight"
        return
    warm = np.array([1.0, rng.uniform(0.68, 1.0), rng.uniform(0.4, 1.0)])
    style = int(rng.integers(3))
    for _ in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-0.3, 0.3) * room.width, rng.uniform(-0.3, 0.3) * room.depth
        if style == 0:
            lw, ld = rng.uniform(0.3, 1.3), rng.uniform(0.15, 0.6)
            b.add_light(box((lw, ld, 0.04), (x, y, room.height - 0.04)), warm * 6 / max(lw * ld, 0.1) ** 0.5)
        else:
            r, z = rng.uniform(0.09, 0.2), room.height - rng.uniform(0.15, 0.7)
            b.add_part(
                Part(tube([(x, y, z), (x, y, room.height)], 0.008, 6), "plain", "dark"),
                b.add_instance("lamp"),
            )
            bulb = (
                ball(r, (x, y, z - r)) if style == 1 else rounded((2.4 * r, 2.4 * r, r), (x, y, z - r), 0.7)
            )
            b.add_light(bulb, warm * 5 * (0.15 / r) ** 1.5)
