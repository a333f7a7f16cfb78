"""Procedural surface patterns: small periodic images (n n 3, linear albedo in [0.02, 0.92]) and their
size in metres.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.float32]
Rng = np.random.Generator
SIZE = 128


@dataclass(frozen=True)
class Texture:
    """A periodic image and how many metres one period covers."""

    image: ImageArray
    period: float


def fbm(rng: Rng, n: int = SIZE, slope: float = 1.8) -> NDArray[np.float32]:
    """Periodic fractal noise n n in [0, 1] with amplitude spectrum 1 / f^(slope/2 + 0.5), by FFT of white
    noise.
    """
    f = np.fft.fftfreq(n) * n
    k = np.hypot(f[:, None], np.fft.rfftfreq(n)[None] * n)
    k[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((n, n))) * k ** (-slope / 2 - 0.5)
    spectrum[0, 0] = 0
    x = np.fft.irfft2(spectrum, s=(n, n))
    return ((x - x.min()) / (np.ptp(x) + 1e-9)).astype(np.float32)


def color(rng: Rng, palette: str = "any") -> NDArray[np.float64]:
    """A linear albedo. Palettes: any, neutral, light, muted, vivid, wood, dark.
    Every call is independent, so hues do not agree.
    """
    if palette == "any":
        palette = str(rng.choice(["neutral", "neutral", "light", "muted", "muted", "vivid", "wood", "dark"]))
    h, s, v = rng.random(), rng.beta(1.5, 2.5), rng.uniform(0.15, 0.95)
    if palette == "neutral":
        h, s = rng.normal(0.1, 0.06) % 1 if rng.random() < 0.7 else rng.random(), rng.uniform(0, 0.18)
    elif palette == "light":
        h, s, v = (
            rng.normal(0.1, 0.08) % 1 if rng.random() < 0.6 else rng.random(),
            rng.uniform(0, 0.3),
            rng.uniform(0.6, 0.95),
        )
    elif palette == "muted":
        s, v = rng.uniform(0.15, 0.55), rng.uniform(0.2, 0.85)
    elif palette == "vivid":
        s, v = rng.uniform(0.5, 0.95), rng.uniform(0.3, 0.95)
    elif palette == "wood":
        h, s, v = rng.uniform(0.02, 0.11), rng.uniform(0.3, 0.75), rng.uniform(0.2, 0.8)
    elif palette == "dark":
        s, v = rng.uniform(0, 0.5), rng.uniform(0.05, 0.3)
    return (
        np.array(colorsys.hsv_to_rgb(h, s, v)) ** 2.0
    )  # hsv is about displayed colours: undo the display curve


def ramp(t: NDArray, colors: NDArray) -> NDArray:
    """Piecewise linear colour ramp: t in [0, 1] to n n 3."""
    x = np.clip(t, 0, 1) * (len(colors) - 1)
    i = np.minimum(x.astype(int), len(colors) - 2)
    f = (x - i)[..., None]
    return colors[i] * (1 - f) + colors[i + 1] * f


def _axes(n: int = SIZE) -> tuple[NDArray, NDArray]:
    """y (down) and x in [0, 1), n n each."""
    y, x = np.mgrid[0:n, 0:n] / n
    return y, x


def _colors(rng: Rng, count: int, palette: str = "any") -> NDArray:
    return np.stack([color(rng, palette) for _ in range(count)])


def plain(rng: Rng, palette: str = "any") -> Texture:
    """One colour with little noise."""
    amount = rng.choice([0.0, 0.03, 0.08, 0.2])
    return Texture(
        _finish(color(rng, palette) * (1 - amount / 2 + amount * fbm(rng)[..., None])), rng.uniform(0.5, 3)
    )


def cloudy(rng: Rng, palette: str = "any") -> Texture:
    """Fractal noise through a colour ramp: stains, stone, paint."""
    return Texture(
        _finish(ramp(fbm(rng, slope=rng.uniform(0.8, 2.5)), _colors(rng, int(rng.integers(2, 5)), palette))),
        rng.uniform(0.4, 3),
    )


def marble(rng: Rng, palette: str = "any") -> Texture:
    """Sine veins bent by noise."""
    y, x = _axes()
    phase = rng.integers(1, 5) * x + rng.integers(0, 4) * y
    t = 0.5 + 0.5 * np.sin(2 * np.pi * phase + rng.uniform(3, 12) * fbm(rng))
    return Texture(_finish(ramp(t, _colors(rng, int(rng.integers(2, 4)), palette))), rng.uniform(0.5, 2))


def wood(rng: Rng, palette: str = "wood") -> Texture:
    """Grain along x; sometimes cut into planks with their own shade."""
    y, x = _axes()
    base = color(rng, "wood" if palette == "any" else palette)
    planks = int(rng.choice([1, 4, 6, 8]))
    row = (y * planks).astype(int)
    shift = rng.random(planks)[row]
    shade = rng.uniform(1 - rng.uniform(0, 0.4), 1, planks)[row]
    grain = fbm(rng, slope=1.6)[(y * SIZE).astype(int), ((x * 0.25 + shift) * SIZE).astype(int) % SIZE]
    lines = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(6, 18) * y + 3 * grain))
    t = (0.75 + 0.25 * lines * grain + 0.25 * (grain - 0.5)) * shade
    if planks > 1:
        t = np.where((y * planks % 1 < 0.06) | ((x + shift) % 1 < 0.01), t * 0.55, t)
    return Texture(
        _finish(base * t[..., None]),
        planks * rng.uniform(0.08, 0.16) if planks > 1 else rng.uniform(0.4, 1.2),
    )


def bricks(rng: Rng, palette: str = "any", bond: bool = True) -> Texture:
    """Bricks in running bond, or square tiles, with joints and a shade of their own."""
    y, x = _axes()
    columns = int(rng.integers(2, 6))
    rows = columns * (int(rng.integers(2, 4)) if bond else 1)
    rows += rows % 2
    row = (y * rows).astype(int)
    xx = x * columns + (0.5 * (row % 2) if bond else 0)
    cell = (np.floor(xx).astype(int) % columns) + columns * row
    shade = rng.uniform(1 - rng.uniform(0.05, 0.6), 1, columns * rows)[cell]
    width = rng.uniform(0.02, 0.07)
    joint = (xx % 1 < width) | (y * rows % 1 < width * (rows / columns))
    stone = _colors(rng, 2, palette)
    if not bond and rng.random() < 0.3:
        image = stone[((np.floor(xx).astype(int)) + row) % 2] * shade[..., None]
    else:
        image = stone[0] * shade[..., None]
    image = image * (0.8 + 0.3 * fbm(rng)[..., None])
    image = np.where(joint[..., None], color(rng, "neutral"), image)
    return Texture(
        _finish(image),
        columns * (rng.uniform(0.2, 0.3) if bond else rng.choice([0.1, 0.15, 0.3, 0.45, 0.6])),
    )


def tiles(rng: Rng, palette: str = "any") -> Texture:
    """Square tiles, now and then a chessboard."""
    return bricks(rng, palette, bond=False)


def stripes(rng: Rng, palette: str = "any") -> Texture:
    """Stripes of two to four colours and uneven widths, upright or across."""
    y, x = _axes()
    count = int(rng.integers(2, 9))
    edges = np.sort(rng.random(count))
    band = np.searchsorted(edges, x if rng.random() < 0.6 else y)
    image = _colors(rng, 4, palette)[rng.integers(0, int(rng.integers(2, 5)), count + 1)[band % count]]
    return Texture(_finish(image * (0.92 + 0.08 * fbm(rng)[..., None])), rng.uniform(0.1, 1.2))


def fabric(rng: Rng, palette: str = "any") -> Texture:
    """Woven threads, plain or tartan."""
    y, x = _axes()
    threads = int(rng.choice([16, 32, 42]))
    weave = 0.8 + 0.2 * np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    image = np.broadcast_to(color(rng, palette), (SIZE, SIZE, 3))
    if rng.random() < 0.4:
        a, b = rng.integers(1, 5, 2)
        tartan = 0.5 * (
            (a * x % 1 < rng.uniform(0.2, 0.6)).astype(float) + (b * y % 1 < rng.uniform(0.2, 0.6))
        )
        image = ramp(tartan, _colors(rng, 3, palette))
    return Texture(
        _finish(image * (weave * (0.8 + 0.3 * fbm(rng, slope=0.6)))[..., None]), rng.uniform(0.15, 0.6)
    )


def carpet(rng: Rng, palette: str = "any") -> Texture:
    """Short rough pile: noise of high frequency."""
    t = 0.55 + 0.6 * fbm(rng, slope=rng.uniform(-0.6, 0.6))
    return Texture(_finish(color(rng, palette) * t[..., None]), rng.uniform(0.4, 1.5))


def cells(rng: Rng, palette: str = "any") -> Texture:
    """Voronoi cells (terrazzo, mosaic, leopard) or dots."""
    y, x = _axes()
    count = int(rng.integers(8, 50))
    p = rng.random((count, 2))
    dx, dy = np.abs(x[..., None] - p[:, 0]), np.abs(y[..., None] - p[:, 1])
    d = np.minimum(dx, 1 - dx) ** 2 + np.minimum(dy, 1 - dy) ** 2
    nearest = d.argmin(-1)
    colors = _colors(rng, 4, palette)
    if rng.random() < 0.5:
        image = colors[nearest % 4] * rng.uniform(0.6, 1, count)[nearest][..., None]
    else:
        image = np.where(
            (np.sqrt(d.min(-1)) < rng.uniform(0.2, 0.4) / np.sqrt(count))[..., None], colors[0], colors[1]
        )
    return Texture(_finish(image), rng.uniform(0.3, 1.5))


def flowers(rng: Rng, palette: str = "any") -> Texture:
    """Wallpaper and cloth: round petals strewn over a ground colour."""
    y, x = _axes()
    image = np.broadcast_to(color(rng, palette), (SIZE, SIZE, 3)).copy()
    colors = _colors(rng, 3)
    for _ in range(int(rng.integers(4, 14))):
        cx, cy = rng.random(2)
        dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
        r, petals = rng.uniform(0.04, 0.13), int(rng.integers(3, 8))
        edge = r * (0.6 + 0.4 * np.cos(petals * np.arctan2(dy, dx) + rng.uniform(0, 6)))
        d = np.hypot(dx, dy)
        image[d < edge] = colors[rng.integers(3)]
        image[d < 0.25 * r] = colors[rng.integers(3)]
    return Texture(_finish(image), rng.uniform(0.3, 1.2))


def grass(rng: Rng, palette: str = "any") -> Texture:
    """Grass, soil, sand and dry leaves."""
    kind = str(rng.choice(["grass", "grass", "soil", "sand"]))
    low, high = {"grass": (0.22, 0.3), "soil": (0.06, 0.1), "sand": (0.09, 0.13)}[kind]
    colors = np.stack(
        [
            np.array(colorsys.hsv_to_rgb(rng.uniform(low, high), rng.uniform(0.3, 0.7), v)) ** 2.0
            for v in (0.2, 0.4, 0.65)
        ]
    )
    return Texture(
        _finish(ramp(0.5 * fbm(rng, slope=0.3) + 0.5 * fbm(rng, slope=2), colors)), rng.uniform(1.5, 4)
    )


def asphalt(rng: Rng, palette: str = "dark") -> Texture:
    """Grey with grain: roads, concrete."""
    t = 0.7 + 0.5 * (fbm(rng, slope=-0.5) - 0.5) + 0.4 * (fbm(rng, slope=2) - 0.5)
    return Texture(_finish(np.full(3, rng.uniform(0.04, 0.3)) * t[..., None]), rng.uniform(1, 3))


def leaves(rng: Rng, palette: str = "any") -> Texture:
    """Green to autumn foliage."""
    hue = rng.uniform(0.2, 0.38) if rng.random() < 0.8 else rng.uniform(0.02, 0.15)
    colors = np.stack(
        [np.array(colorsys.hsv_to_rgb(hue + rng.normal(0, 0.02), 0.65, v)) ** 2.0 for v in (0.25, 0.45, 0.75)]
    )
    return Texture(_finish(ramp(fbm(rng, slope=1), colors)), rng.uniform(0.3, 1))


def _finish(image: NDArray) -> ImageArray:
    """Clipped to albedos of real materials: neither black nor perfectly white."""
    return np.clip(image, 0.02, 0.92).astype(np.float32)


PATTERNS: dict[str, Callable[..., Texture]] = {
    "plain": plain, "cloudy": cloudy, "marble": marble, "wood": wood, "bricks": bricks, "tiles": tiles,
    "stripes": stripes, "fabric": fabric, "carpet": carpet, "cells": cells, "flowers": flowers,
    "grass": grass,
    "asphalt": asphalt, "leaves": leaves,
}  # fmt: skip


def texture(rng: Rng, kind: str = "", palette: str = "any") -> Texture:
    """A pattern by name; a space-separated list of names is a choice, no name is any pattern for things."""
    names = kind.split() or [
        "plain",
        "plain",
        "cloudy",
        "marble",
        "wood",
        "tiles",
        "stripes",
        "fabric",
        "cells",
        "flowers",
    ]
    return PATTERNS[names[int(rng.integers(len(names)))]](rng, palette)
