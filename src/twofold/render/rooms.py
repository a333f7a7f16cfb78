"""Furnished rooms, viewed at eye height."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from twofold.render import furniture as f, objects
from twofold.render.camera import View, look_at
from twofold.render.meshes import Array, box
from twofold.render.pieces import Part, Piece, piece_bounds
from twofold.render.scene import Builder
from twofold.render.shell import TURN, Room, build_shell
from twofold.render.textures import Rng

Rect = tuple[float, float, float, float]

PLANS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # what stands at the walls, and what stands in the middle
    "living room": (
        ("sofa", "shelf", "cabinet", "armchair", "floor_lamp", "plant", "cabinet", "shelf"),
        ("lounge", "dining", ""),
    ),
    "dining room": (
        ("cabinet", "shelf", "cabinet", "armchair", "floor_lamp", "plant", "sofa"),
        ("dining", "dining", "dining"),
    ),
    "bedroom": (("bed", "cabinet", "shelf", "desk", "armchair", "floor_lamp", "plant"), ("", "lounge", "")),
    "office": (("desk", "desk", "shelf", "shelf", "cabinet", "plant", "boxes"), ("desks", "dining", "desks")),
    "kitchen": (("cabinet", "cabinet", "cabinet", "shelf", "plant", "boxes"), ("dining", "dining", "")),
    "store room": (("shelf", "shelf", "shelf", "boxes", "boxes", "cabinet", "desk"), ("boxes", "", "boxes")),
}


class Floor:
    """Which parts of the floor are taken: axis-parallel rectangles."""

    def __init__(self, room: Room) -> None:
        self.room, self.taken = room, list[Rect]()

    def fits(self, r: Rect, margin: float = 0.0) -> bool:
        """Inside the room and clear of everything."""
        w, d = self.room.width / 2, self.room.depth / 2
        if r[0] < -w or r[2] > w or r[1] < -d or r[3] > d:
            return False
        return all(
            r[2] + margin < t[0] or r[0] - margin > t[2] or r[3] + margin < t[1] or r[1] - margin > t[3]
            for t in self.taken
        )


def _rect(x: float, y: float, size: tuple[float, float], turn: float) -> Rect:
    """The axis-parallel hull of a turned footprint."""
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    hw, hd = (c * size[0] + s * size[1]) / 2, (s * size[0] + c * size[1]) / 2
    return (x - hw, y - hd, x + hw, y + hd)


def scatter(
    rng: Rng,
    b: Builder,
    piece: Piece,
    at: tuple[float, float, float],
    turn: float,
    most: int,
    scale: float = 1.0,
) -> None:
    """Stand up to `most` small things on the top of a piece without overlap."""
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, most + 1))):
        thing = b.models.pick(rng, "small", 0.5) or objects.small_object(rng)
        r = max(thing.size) / 2
        lx = rng.uniform(-1, 1) * max(piece.size[0] / 2 - r, 0) * scale
        ly = rng.uniform(-1, 1) * max(piece.size[1] / 2 - r, 0) * scale
        if any(np.hypot(lx - x, ly - y) < r + q for x, y, q in placed) or 2 * r > min(piece.size):
            continue
        placed.append((lx, ly, r))
        c, s = np.cos(turn), np.sin(turn)
        b.add_piece(
            thing,
            (at[0] + c * lx - s * ly, at[1] + s * lx + c * ly, at[2] + piece.top),
            rng.uniform(0, 2 * np.pi),
        )


def _make(rng: Rng, b: Builder, name: str) -> Piece:
    """A piece by its name in the plans: with some probability a catalogue model, else a procedural one."""
    if found := b.models.pick(rng, name):
        return found
    if name == "plant":
        return objects.potted_plant(rng, rng.uniform(2, 4))
    if name == "boxes":
        parts = [p.mesh.scaled(2.0) for p in objects.carton(rng).parts]
        low, high = parts[0].bounds
        return Piece(
            "box",
            [Part(parts[0], texture_kind="poster" if rng.random() < 0.3 else "")],
            (high[0] - low[0], high[1] - low[1]),
        )
    return getattr(f, name)(rng)


def _along_wall(rng: Rng, b: Builder, floor: Floor, name: str) -> None:
    """One piece with its back to a wall."""
    room, piece = floor.room, _make(rng, b, name)
    tall = piece_bounds(piece)[1][2] > 0.8
    for _ in range(12):
        wall = int(rng.integers(4))
        span = room.length(wall) / 2 - piece.size[0] / 2 - 0.03
        if span <= 0:
            continue
        s, gap = rng.uniform(-span, span), rng.uniform(0.04, 0.12)
        doors = [h for h in room.holes[wall] if h.kind != "window" or tall or h.bottom < 0.3]
        if any(
            s + piece.size[0] / 2 > h.left - 0.05 and s - piece.size[0] / 2 < h.right + 0.05 for h in doors
        ):
            continue
        y, turn = room.away(wall) - piece.size[1] / 2 - gap, TURN[wall]
        x0, y0 = np.cos(turn) * s - np.sin(turn) * y, np.sin(turn) * s + np.cos(turn) * y
        rect = _rect(x0, y0, piece.size, turn)
        if not floor.fits(rect, 0.05):
            continue
        floor.taken.append(rect)
        turn += rng.normal(0, 0.02) if piece.kind != "chair" else rng.normal(0, 0.4)
        _stand(rng, b, floor, piece, name, (float(x0), float(y0)), float(turn))
        return


def _stand(
    rng: Rng, b: Builder, floor: Floor, piece: Piece, name: str, at: tuple[float, float], turn: float
) -> None:
    """Put a piece down with what belongs to it: things on top, the chair of a desk, the glow of a lamp."""
    here = (at[0], at[1], 0.0)
    if piece.kind == "lamp" and rng.random() < 0.6 and len(b.lights) < 3:
        shade = piece.parts[1].mesh.moved(here, turn)
        b.add_light(
            shade, np.array([1.0, rng.uniform(0.7, 0.95), rng.uniform(0.45, 0.8)]) * rng.uniform(1.5, 5)
        )
        piece = Piece(piece.kind, piece.parts[:1], piece.size)
    b.add_piece(piece, here, turn)
    if piece.top:
        scatter(rng, b, piece, here, turn, 7 if name in ("desk", "dining_table") else 5, 0.9)
    if name == "desk":
        c, s = np.cos(turn), np.sin(turn)
        if rng.random() < 0.7:
            lx = rng.uniform(-0.3, 0.3) * piece.size[0]
            b.add_piece(
                objects.monitor(rng), (at[0] + c * lx - s * 0.12, at[1] + s * lx + c * 0.12, piece.top), turn
            )
        seat = _make(rng, b, "office_chair" if rng.random() < 0.6 else "chair")
        out = -(piece.size[1] / 2 + rng.uniform(0.05, 0.5))
        x, y = at[0] - s * out, at[1] + c * out
        rect = _rect(x, y, seat.size, 0)
        if floor.fits((rect[0] + 0.1, rect[1] + 0.1, rect[2] - 0.1, rect[3] - 0.1)):
            floor.taken.append(rect)
            b.add_piece(seat, (x, y, 0), turn + np.pi + rng.normal(0, 0.5))


def _middle(rng: Rng, b: Builder, floor: Floor, name: str) -> Array:
    """The group in the middle of the room; returns its place."""
    room = floor.room
    x, y = rng.uniform(-0.2, 0.2) * room.width, rng.uniform(-0.2, 0.2) * room.depth
    turn = float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.06)
    if name == "dining":
        table = _make(rng, b, "dining_table")
        rect = _rect(x, y, (table.size[0] + 0.5, table.size[1] + 0.5), turn)
        if not floor.fits(rect):
            return np.array([x, y])
        floor.taken.append(rect)
        _stand(rng, b, floor, table, "dining_table", (x, y), turn)
        _chairs(rng, b, table, (x, y), turn)
    elif name == "lounge":
        table = _make(rng, b, "coffee_table")
        rect = _rect(x, y, table.size, turn)
        if floor.fits(rect):
            floor.taken.append(rect)
            _stand(rng, b, floor, table, "coffee_table", (x, y), turn)
        seat = _make(rng, b, "armchair" if rng.random() < 0.5 else "sofa")
        a = turn + float(rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]))
        sx, sy = x - np.sin(a) * 1.2, y + np.cos(a) * 1.2
        if floor.fits(_rect(sx, sy, seat.size, a), 0.02):
            floor.taken.append(_rect(sx, sy, seat.size, a))
            b.add_piece(seat, (sx, sy, 0), a + rng.normal(0, 0.15))
    elif name == "desks":
        for k in range(int(rng.integers(1, 3))):
            table, a = _make(rng, b, "desk"), turn + np.pi * k
            sx, sy = x - np.sin(a) * (table.size[1] / 2 + 0.01), y + np.cos(a) * (table.size[1] / 2 + 0.01)
            if floor.fits(_rect(sx, sy, table.size, a), -0.05):
                floor.taken.append(_rect(sx, sy, table.size, a))
                _stand(rng, b, floor, table, "desk", (sx, sy), a + np.pi)
    elif name == "boxes":
        for _ in range(int(rng.integers(2, 7))):
            piece, px, py = _make(rng, b, "boxes"), x + rng.normal(0, 0.6), y + rng.normal(0, 0.6)
            if floor.fits(_rect(px, py, piece.size, 0.7)):
                floor.taken.append(_rect(px, py, piece.size, 0.7))
                b.add_piece(piece, (px, py, 0), rng.uniform(0, 6.3))
    return np.array([x, y])


def _chairs(rng: Rng, b: Builder, table: Piece, at: tuple[float, float], turn: float) -> None:
    """Chairs of one make around a table, each pulled out and turned a little."""
    model = _make(rng, b, "chair")
    w, d = table.size
    count = max(1, int(w / 0.65))
    spots = [
        ((k + 0.5) / count * w - w / 2, side * d / 2, 0.0 if side > 0 else np.pi)
        for side in (-1, 1)
        for k in range(count)
    ]
    spots += [(side * w / 2, 0.0, -np.pi / 2 * side) for side in (-1, 1)] if rng.random() < 0.6 else []
    first: list[int] = []
    for sx, sy, face in spots:
        if rng.random() < 0.2:
            continue
        out = rng.uniform(0.0, 0.3) if rng.random() < 0.7 else rng.uniform(0.3, 0.6)
        lx, ly = sx - np.sin(face) * out, sy + np.cos(face) * out
        c, s = np.cos(turn), np.sin(turn)
        owner = b.add_instance("chair")
        where = (at[0] + c * lx - s * ly, at[1] + s * lx + c * ly, 0.0)
        angle = turn + face + rng.normal(0, 0.12)
        for k, part in enumerate(model.parts):
            atlas_tile = b.add_part(part.moved(where, angle), owner, first[k] if k < len(first) else None)
            if len(first) <= k:
                first.append(atlas_tile)


def build_room(rng: Rng, b: Builder) -> tuple[str, Callable[[Rng], View]]:
    """Furnish a room; returns its name and the function that proposes cameras."""
    name = str(rng.choice(list(PLANS), p=[0.26, 0.26, 0.13, 0.2, 0.08, 0.07]))
    room = Room(rng.uniform(3.2, 7.5), rng.uniform(3.2, 7.5), rng.uniform(2.35, 3.1))
    build_shell(rng, b, room)
    floor = Floor(room)
    sides, middles = PLANS[name]
    middle = _middle(rng, b, floor, str(rng.choice(middles)))
    if rng.random() < 0.4:
        rw, rd = min(rng.uniform(1.4, 3), room.width - 0.4), min(rng.uniform(1.2, 2.4), room.depth - 0.4)
        rx, ry = np.clip(
            middle,
            [-(room.width - rw) / 2, -(room.depth - rd) / 2],
            [(room.width - rw) / 2, (room.depth - rd) / 2],
        )
        rug = Part(
            box((rw, rd, 0.012), (float(rx), float(ry), 0)), "carpet fabric flowers stripes cells tiles"
        )
        b.add_part(rug, b.add_instance("rug"))
    for _ in range(int(rng.integers(5, 12))):
        _along_wall(rng, b, floor, str(rng.choice(sides)))
    if rng.random() < 0.12:
        px, py = rng.uniform(-0.4, 0.4, 2) * [room.width, room.depth]
        if floor.fits(_rect(px, py, (0.6, 0.6), 0)):
            floor.taken.append(_rect(px, py, (0.6, 0.6), 0))
            b.add_piece(b.models.pick(rng, "person") or objects.person(rng), (px, py, 0), rng.uniform(0, 6.3))
    for _ in range(int(rng.integers(0, 4))):
        px, py = rng.uniform(-0.45, 0.45, 2) * [room.width, room.depth]
        thing = objects.carton(rng) if rng.random() < 0.5 else objects.toy(rng)
        if floor.fits(_rect(px, py, thing.size, 0.7)):
            b.add_piece(thing, (px, py, 0), rng.uniform(0, 6.3))
    spots = np.array([[(t[0] + t[2]) / 2, (t[1] + t[3]) / 2] for t in floor.taken] or [[0.0, 0.0]])

    def propose(r: Rng) -> View:
        """A standing or seated person near a wall, looking over the room."""
        for _ in range(40):
            side = rng_edge(r, room)
            if floor.fits((side[0] - 0.2, side[1] - 0.2, side[0] + 0.2, side[1] + 0.2), 0.15):
                break
        target = spots[int(r.integers(len(spots)))] * 0.7 + r.normal(0, 0.5, 2)
        if np.hypot(*(target - side)) < 1.2:
            target = -side * 0.6
        eye = np.array([side[0], side[1], min(r.uniform(1.2, 1.8), room.height - 0.4)])
        tilt = float(np.clip(r.normal(11, 8), -3, 28))
        return look_at(eye, target, r.uniform(50, 75), tilt, np.radians(r.normal(0, 1.5)))

    return name, propose


def rng_edge(r: Rng, room: Room) -> Array:
    """A place for the camera: mostly 0.3-1 m from the edge of the room, sometimes anywhere."""
    w, d = room.width / 2 - 0.3, room.depth / 2 - 0.3
    p = np.array([r.uniform(-w, w), r.uniform(-d, d)])
    if r.random() < 0.8:
        if r.random() < 0.5:
            p[0] = r.choice([-1, 1]) * (w - abs(r.normal(0, 0.3)))
        else:
            p[1] = r.choice([-1, 1]) * (d - abs(r.normal(0, 0.3)))
    return np.clip(p, [-w, -d], [w, d])
