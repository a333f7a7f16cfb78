"""Furniture: each function returns parts (mesh, pattern names, palette of colour) standing on the origin,
front toward -y.
"""

from __future__ import annotations

import numpy as np

from twofold.render.meshes import Mesh, ball, box, cylinder, join, lathe, rounded, sheet, tube
from twofold.render.pieces import Part, Piece
from twofold.render.textures import Rng

WOODY = "wood wood wood plain marble"
CLOTH = "fabric fabric plain carpet stripes flowers"


def _legs(w: float, d: float, h: float, thick: float, rng: Rng) -> Mesh:
    """Four legs: square, round, tapered or splayed."""
    style = rng.integers(3)
    legs = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (w / 2 - thick), sy * (d / 2 - thick)
            if style == 0:
                legs.append(box((thick, thick, h), (x, y, 0)))
            else:
                splay = 1.0 if style == 1 else 1.12
                legs.append(tube([(x * splay, y * splay, 0), (x, y, h)], [thick * 0.35, thick * 0.6], 10))
    return join(legs)


def dining_table(rng: Rng) -> Piece:
    """A table 0.7-0.8 m high: rectangular or round, on legs, trestles or a column."""
    w, d, h = rng.uniform(1.0, 2.2), rng.uniform(0.7, 1.1), rng.uniform(0.7, 0.8)
    t = rng.uniform(0.025, 0.06)
    if rng.random() < 0.3:
        r = rng.uniform(0.4, 0.7)
        top = cylinder(r, t, 36).moved((0, 0, h - t))
        base = join([cylinder(0.05, h - t, 14), cylinder(r * 0.55, 0.04, 24, r * 0.3)])
        return Piece("table", [Part(top, WOODY), Part(base, WOODY, "dark")], (2 * r, 2 * r), h)
    rim = box((w - 0.12, d - 0.12, 0.08), (0, 0, h - t - 0.08))
    parts = [
        Part(box((w, d, t), (0, 0, h - t)), WOODY),
        Part(join([_legs(w, d, h - t, 0.07, rng), rim]), WOODY),
    ]
    if rng.random() < 0.25:  # a cloth: texture on top of geometry
        cw, cd = (w * 0.5, d + 0.3) if rng.random() < 0.5 else (w * 0.7, d * 0.5)
        parts.append(Part(box((cw, min(cd, d), 0.006), (0, 0, h)), CLOTH, "any"))
    return Piece("table", parts, (w, d), h)


def coffee_table(rng: Rng) -> Piece:
    """A low table."""
    w, d, h = rng.uniform(0.6, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.35, 0.5)
    parts = [Part(box((w, d, 0.04), (0, 0, h - 0.04)), WOODY), Part(_legs(w, d, h - 0.04, 0.05, rng), WOODY)]
    if rng.random() < 0.4:
        parts.append(Part(box((w - 0.1, d - 0.1, 0.02), (0, 0, 0.12)), WOODY))
    return Piece("table", parts, (w, d), h)


def desk(rng: Rng) -> Piece:
    """A desk with a drawer block or side panels, perhaps with a back screen."""
    w, d, h = rng.uniform(1.1, 1.9), rng.uniform(0.6, 0.85), rng.uniform(0.7, 0.78)
    body = [box((0.04, d - 0.06, h - 0.03), (-w / 2 + 0.03, 0, 0))]
    parts = [Part(box((w, d, 0.03), (0, 0, h - 0.03)), WOODY)]
    if rng.random() < 0.6:
        body.append(box((0.4, d - 0.1, h - 0.05), (w / 2 - 0.22, 0.02, 0.02)))
        knobs = [box((0.36, 0.015, 0.19), (w / 2 - 0.22, -d / 2 + 0.06, 0.05 + 0.21 * k)) for k in range(3)]
        parts.append(Part(join(knobs), "plain wood"))
    else:
        body.append(box((0.04, d - 0.06, h - 0.03), (w / 2 - 0.03, 0, 0)))
    parts.append(Part(join(body), "wood plain", "any"))
    if rng.random() < 0.25:
        parts.append(Part(box((w, 0.03, rng.uniform(0.3, 0.6)), (0, d / 2, h - 0.05)), "plain fabric", "any"))
    return Piece("table", parts, (w, d), h)


def chair(rng: Rng) -> Piece:
    """A dining chair: slatted, panelled or upholstered back."""
    w, h = rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48)
    back = rng.uniform(0.4, 0.62)
    wood = "wood wood wood plain"
    lean = rng.uniform(0.02, 0.1)
    style = int(rng.integers(4))
    frame = [_legs(w, w, h, 0.045, rng)]
    y = w / 2 - 0.025
    for sx in (-1, 1):
        x = sx * (w / 2 - 0.025)
        frame.append(
            tube([(x, y, h - 0.03), (x, y + lean * 0.5, h + back / 2), (x, y + lean, h + back)], 0.019, 8)
        )
    parts = []
    if style == 0:
        for k in range(int(rng.integers(2, 5))):
            z = h + back * (0.35 + 0.2 * k)
            if z < h + back + 0.02:
                frame.append(box((w - 0.06, 0.02, 0.06), (0, y + lean * (z - h) / back, z - 0.04)))
    elif style == 1:
        frame.append(box((w - 0.04, 0.025, 0.08), (0, y + lean, h + back - 0.06)))
        for x in np.linspace(-w / 2 + 0.08, w / 2 - 0.08, int(rng.integers(3, 6))):
            frame.append(tube([(x, y, h), (x, y + lean, h + back - 0.04)], 0.009, 6))
    else:
        pad = rounded((w - 0.04, 0.07, back * 0.75), (0, y + lean * 0.6, h + back * 0.22), 0.3)
        parts.append(Part(pad, CLOTH))
    seat = (
        rounded((w, w, 0.07), (0, 0, h - 0.02), 0.25)
        if style > 1 or rng.random() < 0.4
        else box((w, w, 0.03), (0, 0, h))
    )
    parts += [Part(join(frame), wood), Part(seat, CLOTH if style > 1 else wood)]
    return Piece("chair", parts, (w, w + 0.05))


def office_chair(rng: Rng) -> Piece:
    """A swivel chair: five-armed foot, column, cushions, perhaps arms."""
    h = rng.uniform(0.42, 0.52)
    foot = [tube([(0, 0, 0.1), (0, 0, h)], 0.03, 10)]
    start = rng.uniform(0, 6)
    for k in range(5):
        a = start + k * 2 * np.pi / 5
        x, y = 0.3 * np.cos(a), 0.3 * np.sin(a)
        foot += [tube([(0, 0, 0.12), (x, y, 0.07)], [0.03, 0.02], 8), ball(0.03, (x, y, 0))]
    back = rng.uniform(0.4, 0.65)
    foot.append(tube([(0, 0.15, h), (0, 0.27, h + 0.05), (0, 0.27, h + back * 0.6)], 0.02, 8))
    seat = [
        rounded((0.48, 0.46, 0.1), (0, 0, h), 0.35),
        rounded((0.44, 0.09, back), (0, 0.26, h + 0.15), 0.4),
    ]
    if rng.random() < 0.5:
        for s in (-0.27, 0.27):
            foot.append(tube([(s, 0.1, h + 0.02), (s, 0.08, h + 0.2), (s, -0.14, h + 0.22)], 0.018, 8))
    return Piece("chair", [Part(join(foot), "plain", "dark"), Part(join(seat), CLOTH)], (0.6, 0.6))


def armchair(rng: Rng, width: float | None = None) -> Piece:
    """An armchair, or with `width` a sofa: soft blocks, arms, a back, cushions."""
    w = width or rng.uniform(0.75, 0.95)
    d, arm, seat = rng.uniform(0.75, 0.95), rng.uniform(0.12, 0.22), rng.uniform(0.38, 0.46)
    back = rng.uniform(0.75, 1.1) if width is None else rng.uniform(0.7, 0.9)
    sharp = float(rng.choice([0.15, 0.25, 0.4]))
    body = [
        rounded((w, d, seat - 0.1), (0, 0, 0.08), 0.12),
        rounded((w - arm, 0.24, back - 0.1), (0, d / 2 - 0.12, 0.1), sharp),
        rounded((arm, d, rng.uniform(0.5, 0.65)), (-w / 2 + arm / 2, 0, 0.06), sharp),
    ]
    body.append(body[2].moved((w - arm, 0, 0)))
    count = max(1, round((w - 2 * arm) / 0.65))
    cw = (w - 2 * arm) / count
    xs = [(-w / 2 + arm) + cw * (k + 0.5) for k in range(count)]
    pads = [rounded((cw, d - 0.25, 0.17), (x, -0.1, seat - 0.1), 0.3) for x in xs]
    pads += [rounded((cw, 0.18, back - seat), (x, d / 2 - 0.3, seat), 0.35) for x in xs]
    parts = [Part(join(body), CLOTH), Part(join([_legs(w, d, 0.1, 0.06, rng)]), "wood", "dark")]
    parts += (
        [Part(join(pads), CLOTH)]
        if rng.random() < 0.3
        else [Part(join(pads), parts[0].patterns, texture_kind="same")]
    )
    for x in xs:
        if rng.random() < 0.35:
            cushion = rounded((0.4, 0.14, 0.4), sharp=0.5).moved(
                (x + rng.normal(0, 0.08), d / 2 - 0.42, seat + 0.03), rng.normal(0, 0.3)
            )
            parts.append(Part(cushion, CLOTH, "any", "cushion"))
    return Piece("chair" if width is None else "sofa", parts, (w, d))


def sofa(rng: Rng) -> Piece:
    """A sofa for two to four."""
    return armchair(rng, rng.uniform(1.4, 2.4))


def bed(rng: Rng) -> Piece:
    """A bed with head board, mattress, blanket and pillows; head toward +y."""
    w, d = float(rng.choice([0.9, 1.4, 1.6, 1.8])), 2.05
    parts = [
        Part(box((w + 0.08, d, 0.25), (0, 0, 0.08)), "wood plain fabric"),
        Part(rounded((w, d - 0.04, 0.24), (0, 0, 0.3), 0.12), "plain fabric", "light"),
        Part(box((w + 0.1, 0.06, rng.uniform(0.7, 1.2)), (0, d / 2, 0)), "wood fabric plain"),
        Part(rounded((w + 0.1, d * rng.uniform(0.5, 0.72), 0.3), (0, -d * 0.15, 0.28), 0.14), CLOTH),
    ]
    for x in [-w / 4, w / 4] if w > 1.2 else [0.0]:
        parts.append(
            Part(
                rounded((0.6, 0.4, 0.16), (x, d / 2 - 0.3, 0.5), 0.45),
                "plain fabric stripes",
                "light",
                "cushion",
            )
        )
    return Piece("bed", parts, (w + 0.1, d))


def books(rng: Rng, width: float, height: float, depth: float) -> Mesh | None:
    """Upright and leaning books on a board `width` wide; each takes its colours from elsewhere in a shared
    image.
    """
    x, row = -width / 2 + rng.uniform(0, 0.1), []
    while x < width / 2 - 0.06:
        if rng.random() < 0.08:
            x += rng.uniform(0.05, 0.25)
            continue
        bw, bh, bd = (
            rng.uniform(0.015, 0.055),
            height * rng.uniform(0.6, 0.92),
            depth * rng.uniform(0.6, 0.85),
        )
        if x + bw > width / 2:
            break
        row.append(
            box((bw, bd, bh), (x + bw / 2, -0.02 + (depth - bd) * -0.3, 0)).shifted_uv(rng.random(2) * 0.6)
        )
        x += bw + 0.002
    return join(row) if row else None


def shelf(rng: Rng) -> Piece:
    """A book case with books, boxes and vases."""
    w, h, d = rng.uniform(0.6, 1.4), rng.uniform(0.8, 2.2), rng.uniform(0.24, 0.36)
    n, t = max(2, round(h / rng.uniform(0.28, 0.42))), 0.022
    boards = [box((t, d, h), (s * (w - t) / 2, 0, 0)) for s in (-1, 1)] + [
        box((w, d, t), (0, 0, (h - t) * i / n)) for i in range(n + 1)
    ]
    if rng.random() < 0.7:
        boards.append(box((w, 0.01, h), (0, d / 2, 0)))
    parts = [Part(join(boards), "wood wood plain")]
    for i in range(n):
        z = (h - t) * i / n + t
        room = (h - t) / n - t
        fill = rng.random()
        row = books(rng, w - 2 * t, room, d) if fill < 0.65 else None
        if row is not None:
            parts.append(Part(row.moved((0, 0, z)), kind="book", texture_kind="spines"))
        elif fill < 0.9:
            for x in np.arange(-w / 2 + 0.15, w / 2 - 0.1, 0.3):
                if rng.random() < 0.6:
                    size = (rng.uniform(0.1, 0.24), d * 0.7, room * rng.uniform(0.4, 0.9))
                    parts.append(Part(box(size, (x, 0, z)), kind="box"))
    return Piece("shelf", parts, (w, d), h)


def cabinet(rng: Rng) -> Piece:
    """A chest of drawers, sideboard or wardrobe with fronts and knobs."""
    tall = rng.random() < 0.3
    w, h, d = (
        rng.uniform(0.6, 1.6),
        rng.uniform(1.7, 2.2) if tall else rng.uniform(0.5, 1.1),
        rng.uniform(0.35, 0.6),
    )
    columns, rows = max(1, round(w / 0.55)), 1 if tall or rng.random() < 0.3 else int(rng.integers(2, 5))
    fronts, knobs = [], []
    for c in range(columns):
        for r in range(rows):
            cw, rh = w / columns, (h - 0.08) / rows
            x, z = -w / 2 + cw * (c + 0.5), 0.06 + rh * r
            fronts.append(box((cw - 0.02, 0.02, rh - 0.02), (x, -d / 2 - 0.005, z)))
            side = 0 if rows > 1 else (cw * 0.4 if c % 2 == 0 else -cw * 0.4)
            knobs.append(ball(0.014, (x + side, -d / 2 - 0.03, z + rh / 2)))
    parts = [Part(box((w, d, h)), "wood wood plain"), Part(join(knobs), "plain", roughness=0.3, metallic=0.8)]
    parts.append(
        Part(join(fronts), "wood plain") if rng.random() < 0.4 else Part(join(fronts), texture_kind="same")
    )
    return Piece("cabinet", parts, (w, d), 0.0 if tall else h)


def floor_lamp(rng: Rng) -> Piece:
    """A standing lamp; its shade is a part of kind "shade" so that the builder may let it glow."""
    h, r = rng.uniform(1.3, 1.8), rng.uniform(0.14, 0.25)
    stand = join([cylinder(0.14, 0.03, 24), tube([(0, 0, 0), (0, 0, h)], 0.012, 8)])
    shade = lathe([r, r * rng.uniform(0.5, 1)], [0, r * 1.4], 28).moved((0, 0, h - 0.05))
    return Piece(
        "lamp", [Part(stand, "plain", "dark", metallic=0.5), Part(shade, "plain fabric", "light")], (0.4, 0.4)
    )


def curtain(rng: Rng, width: float, height: float) -> Part:
    """Hanging cloth in folds, in the plane y = 0."""
    n, m = 70, 8
    t = np.linspace(0, 1, n)
    folds = int(rng.integers(4, 12)) * width
    wave = 0.045 * np.sin(2 * np.pi * folds * t + 0.8 * np.sin(2 * np.pi * 1.7 * t + rng.uniform(0, 6)))
    z = np.linspace(height, 0, m)
    spread = np.linspace(0.9, 1.0, m)
    points = np.zeros((n, m, 3))
    points[..., 0] = (t[:, None] - 0.5) * width * spread
    points[..., 1] = wave[:, None] * np.linspace(0.8, 1.2, m)
    points[..., 2] = z
    return Part(sheet(points), CLOTH, "any", "curtain")
