"""Small things, plants and people: parts standing on the origin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.render.furniture import CLOTH
from twofold.render.meshes import (
    Mesh,
    ball,
    box,
    capsule,
    cylinder,
    join,
    lathe,
    rotation_x,
    rounded,
    sheet,
    torus,
    tube,
)
from twofold.render.pieces import GLAZED, Part, Piece
from twofold.render.plants import potted_plant
from twofold.render.textures import Rng, fbm


def bottle(rng: Rng) -> Piece:
    """A bottle with a label or a cap."""
    r, h = rng.uniform(0.028, 0.045), rng.uniform(0.18, 0.32)
    neck = rng.uniform(0.3, 0.5)
    profile = np.array([0, 0.92, 1, 1, 0.95, neck, neck * 0.9, neck])
    body = lathe(profile * r, np.array([0, 0, 0.03, 0.6, 0.66, 0.78, 0.95, 0.95]) * h)
    parts = [
        Part(body, "plain", "any", roughness=0.15),
        Part(cylinder(neck * r * 1.1, h * 0.07).moved((0, 0, h * 0.94)), "plain"),
    ]
    if rng.random() < 0.6:
        parts.append(Part(lathe([r * 1.02, r * 1.02], [0.2 * h, 0.5 * h]), texture_kind="poster"))
    return Piece("bottle", parts, (2 * r, 2 * r))


def bowl(rng: Rng) -> Piece:
    """A bowl, sometimes with fruit."""
    r, h = rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.1)
    t = np.linspace(0, 1, 9)
    k = rng.uniform(0.4, 0.8)
    outside = r * (0.35 + 0.65 * t**k)
    profile = np.concatenate([[0], outside, (outside - 0.006)[::-1], [0]])
    z = np.concatenate([[0], h * t, (h * t + 0.004)[::-1], [0.006]])
    parts = [Part(lathe(profile, z, 32), GLAZED, roughness=0.25)]
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(2, 6))):
            a, d, s = rng.uniform(0, 6.3), rng.uniform(0, 0.4) * r, rng.uniform(0.022, 0.035)
            parts.append(
                Part(ball(s, (d * np.cos(a), d * np.sin(a), h * 0.4)), "plain cloudy", "vivid", "object")
            )
    return Piece("bowl", parts, (2 * r, 2 * r))


def cup(rng: Rng) -> Piece:
    """A mug with a handle."""
    r, h = rng.uniform(0.03, 0.05), rng.uniform(0.06, 0.12)
    flare = rng.uniform(0.8, 1.2)
    body = lathe(
        np.array([0, 0.9, flare, flare - 0.1, 0.8, 0]) * r, np.array([0, 0, 1, 1, 0.08, 0.08]) * h, 24
    )
    a = np.linspace(-1.3, 1.3, 8)
    handle = tube(
        np.stack([r * 0.9 + h * 0.3 * np.cos(a), 0 * a, h * 0.5 + h * 0.3 * np.sin(a)], 1), 0.005, 8
    )
    return Piece("cup", [Part(join([body, handle]), GLAZED, roughness=0.25)], (2.5 * r, 2 * r))


def vase(rng: Rng) -> Piece:
    """A turned vase of random profile."""
    h, r = rng.uniform(0.12, 0.45), rng.uniform(0.05, 0.13)
    knots = rng.uniform(0.3, 1, int(rng.integers(3, 6)))
    t = np.linspace(0, 1, 18)
    profile = np.interp(t, np.linspace(0, 1, len(knots)), knots)
    profile = np.convolve(np.pad(profile, 2, "edge"), np.ones(5) / 5, "valid") * r
    profile = np.concatenate([[0], profile, (profile - 0.008)[::-1][:6]])
    z = np.concatenate([[0], t * h, (t * h)[::-1][:6]])
    return Piece(
        "vase",
        [Part(lathe(np.clip(profile, 0, None), z, 32), GLAZED, roughness=float(rng.uniform(0.1, 0.8)))],
        (2 * r, 2 * r),
    )


def carton(rng: Rng) -> Piece:
    """A box: plain card board, printed, or open."""
    w, d, h = rng.uniform(0.06, 0.35, 3)
    if rng.random() < 0.2:
        t = 0.008
        walls = [box((w, t, h), (0, s * (d - t) / 2, 0)) for s in (-1, 1)] + [
            box((t, d, h), (s * (w - t) / 2, 0, 0)) for s in (-1, 1)
        ]
        return Piece("box", [Part(join([*walls, box((w, d, t))]), "plain wood stripes")], (w, d))
    return Piece(
        "box", [Part(box((w, d, h)), texture_kind="poster" if rng.random() < 0.5 else "")], (w, d), h
    )


def book_pile(rng: Rng) -> Piece:
    """A few books lying on one another."""
    z, parts = 0.0, []
    for _ in range(int(rng.integers(1, 6))):
        w, d, h = rng.uniform(0.13, 0.24), rng.uniform(0.18, 0.3), rng.uniform(0.012, 0.05)
        parts.append(Part(box((w, d, h)).moved((0, 0, z), rng.normal(0, 0.25)), texture_kind="poster"))
        z += h
    return Piece("book", parts, (0.26, 0.3), z)


def toy(rng: Rng) -> Piece:
    """Something: a superellipsoid, ring, lump, cone, die or ball."""
    s = rng.uniform(0.05, 0.16)
    kind = int(rng.integers(6))
    if kind == 0:
        mesh = rounded(s * rng.uniform(0.8, 2, 3), sharp=float(rng.choice([0.2, 0.4, 1, 1.6])))
    elif kind == 1:
        mesh = torus(s, s * rng.uniform(0.15, 0.45))
    elif kind == 2:
        mesh = lump(rng, s * rng.uniform(0.8, 1.5, 3), rng.uniform(0.3, 1.0))
    elif kind == 3:
        mesh = cylinder(s, s * rng.uniform(0.5, 3), int(rng.choice([3, 4, 6, 24])), s * rng.uniform(0.02, 1))
    elif kind == 4:
        mesh = rounded((s,) * 3, sharp=0.2)
    else:
        return Piece("ball", [Part(ball(s), roughness=float(rng.uniform(0.1, 0.9)))], (2 * s, 2 * s))
    low, high = mesh.bounds
    size = (float(high[0] - low[0]), float(high[1] - low[1]))
    return Piece(
        "object",
        [Part(mesh, roughness=float(rng.uniform(0.1, 0.9)), metallic=0.9 * float(rng.random() < 0.15))],
        size,
    )


def lump(rng: Rng, size: NDArray, rough: float) -> Mesh:
    """A rock: an ellipsoid pushed in and out by noise, closed at seam and poles."""
    base = rounded(size, sharp=1.0, n=24)
    field = fbm(rng, 64, 2.6) - 0.5
    d = base.vertices - [0, 0, size[2] / 2]
    d /= np.linalg.norm(d, axis=1, keepdims=True) + 1e-9
    i = ((d + 1) * 31.5 * 0.8).astype(int) % 64
    push = 1 + rough * (field[i[:, 0], i[:, 1]] + field[i[:, 1], i[:, 2]])
    v = d * push[:, None] * size / 2
    v[:, 2] -= v[:, 2].min()
    from twofold.render.meshes import smooth

    return smooth(v, base.faces, base.uv)


def monitor(rng: Rng) -> Piece:
    """A screen on a foot, showing an image or nothing; it faces -y."""
    w = rng.uniform(0.4, 0.7)
    h = w * rng.uniform(0.55, 0.7)
    frame = [
        box((w, 0.03, h), (0, 0, 0.1)),
        box((0.05, 0.03, 0.15), (0, 0.02, 0)),
        box((0.22, 0.16, 0.015), (0, 0.02, 0)),
    ]
    face = box((w - 0.03, 0.004, h - 0.03), (0, -0.017, 0.115))
    dark = rng.random() < 0.4
    screen = (
        Part(face, "plain", "dark", roughness=0.15)
        if dark
        else Part(face, texture_kind="poster", roughness=0.2)
    )
    parts = [Part(join(frame), "plain", "dark"), screen]
    if rng.random() < 0.7:
        parts.append(Part(box((0.42, 0.14, 0.02), (0, -0.28, 0)), texture_kind="spines", kind="object"))
    return Piece("screen", parts, (w, 0.5))


def table_lamp(rng: Rng) -> Piece:
    """A lamp for table tops."""
    h, r = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.16)
    base = lathe(
        np.array([0, 0.5, 0.5, 0.15, 0.3, 0.08, 0.08]) * r, np.array([0, 0, 0.05, 0.15, 0.45, 0.7, 1]) * h, 24
    )
    shade = lathe([r, r * 0.6], [0, r * 1.2], 28).moved((0, 0, h - 0.03))
    return Piece("lamp", [Part(base, GLAZED), Part(shade, "plain fabric", "light")], (2 * r, 2 * r))


def sheet_of_paper(rng: Rng) -> Piece:
    """Almost no geometry, all texture."""
    w, d = rng.uniform(0.12, 0.3, 2)
    return Piece("object", [Part(box((w, d, 0.002)), texture_kind="poster")], (w, d))


def person(rng: Rng) -> Piece:
    """A standing figure of capsules and ellipsoids with clothes of pattern, looking toward -y."""
    s = rng.uniform(0.9, 1.08)
    stance, swing = rng.uniform(0.07, 0.16), rng.normal(0, 0.12, 2)
    hip, shoulder, head = 0.92, 1.42, 1.64
    atlas_tile, shirt, trousers, shoes = [], [], [], []
    width = rng.uniform(0.17, 0.21)
    skirt = rng.random() < 0.25
    for k, side in enumerate((-1, 1)):
        foot = (side * stance, swing[k] * 0.6, 0.08)
        knee = (side * (stance + 0.09) / 2, swing[k] * 0.3 - 0.02, 0.5)
        legs = atlas_tile if skirt else trousers
        legs += [capsule((side * 0.09, 0, hip), knee, 0.085, 0.06), capsule(knee, foot, 0.06, 0.045)]
        shoes.append(rounded((0.09, 0.25, 0.09), (foot[0], foot[1] - 0.06, 0), 0.6))
        bend = rng.uniform(-0.1, 0.35)
        elbow = (side * (width + rng.uniform(0.04, 0.16)), rng.normal(0, 0.06), 1.14)
        hand = (side * (width + rng.uniform(0, 0.2)), -bend, rng.uniform(0.85, 1.25))
        sleeve = shirt if rng.random() < 0.6 else atlas_tile
        shirt.append(capsule((side * width, 0, shoulder - 0.03), elbow, 0.058, 0.048))
        sleeve.append(capsule(elbow, hand, 0.045, 0.036))
        atlas_tile.append(rounded((0.07, 0.05, 0.12), (hand[0], hand[1], hand[2] - 0.1), 0.8))
    t = np.linspace(0, 1, 9)
    torso = lathe(
        np.interp(t, [0, 0.25, 0.7, 0.92, 1], [0.16, 0.145, 0.185, 0.15, 0.05]),
        hip - 0.06 + t * (shoulder - hip + 0.12),
        26,
    )
    shirt.append(torso.scaled((1, 0.68, 1)))
    if skirt:
        trousers.append(
            lathe([rng.uniform(0.2, 0.34), 0.15], [rng.uniform(0.45, 0.6), hip + 0.05], 28).scaled(
                (1, 0.8, 1)
            )
        )
    else:
        trousers.append(rounded((0.33, 0.24, 0.22), (0, 0, hip - 0.13), 0.7))
    atlas_tile += [
        cylinder(0.05, 0.12).moved((0, 0, shoulder + 0.03)),
        rounded((0.155, 0.2, 0.24), (0, -0.01, head - 0.12), 0.95),
    ]
    atlas_tile.append(rounded((0.03, 0.05, 0.04), (0, -0.11, head - 0.03), 0.9))
    hair = [rounded((0.175, 0.2, rng.uniform(0.14, 0.3)), (0, 0.025, 0), 0.9)]
    top = head + 0.135 - (hair[0].bounds[1][2] - hair[0].bounds[0][2])
    parts = [
        Part(join(atlas_tile), "plain", "wood", roughness=0.6),
        Part(join(shirt), "fabric stripes plain flowers cells"),
        Part(join(trousers), "fabric plain plain stripes"),
        Part(join(shoes), "plain", "dark"),
        Part(hair[0].moved((0, 0, top)), "plain", "dark"),
    ]
    return Piece(
        "person", [Part(p.mesh.scaled(s), p.patterns, p.palette, "", p.roughness) for p in parts], (0.6, 0.4)
    )


def cloth(rng: Rng) -> Piece:
    """A crumpled cloth on a table."""
    n, w = 33, rng.uniform(0.2, 0.5)
    z = 0.08 * fbm(rng, 64, 2.8)[:n, :n] * w / 0.3
    x, y = np.meshgrid(np.linspace(-w / 2, w / 2, n), np.linspace(-w / 2, w / 2, n), indexing="ij")
    fade = np.clip(1.3 - 2 * np.maximum(np.abs(x), np.abs(y)) / w * 1.2, 0.05, 1)
    return Piece("object", [Part(sheet(np.stack([x, y, 0.003 + z * fade], -1)), CLOTH)], (w, w))


def globe(rng: Rng) -> Piece:
    """A globe on a stand."""
    r = rng.uniform(0.1, 0.16)
    ring = torus(r * 1.06, 0.006).rotated(rotation_x(np.pi / 2)).moved((0, 0, r + 0.06))
    stand = join([cylinder(r * 0.6, 0.02), cylinder(0.012, 0.07), ring])
    return Piece(
        "ball",
        [Part(ball(r, (0, 0, 0.06)), "cloudy cells", roughness=0.4), Part(stand, "plain", "dark")],
        (2 * r, 2 * r),
    )


SMALL = (
    bottle,
    bottle,
    bowl,
    bowl,
    cup,
    cup,
    vase,
    vase,
    carton,
    carton,
    book_pile,
    toy,
    toy,
    potted_plant,
    table_lamp,
    sheet_of_paper,
    cloth,
    globe,
)


def small_object(rng: Rng) -> Piece:
    """Any thing for a table top."""
    return SMALL[int(rng.integers(len(SMALL)))](rng)
