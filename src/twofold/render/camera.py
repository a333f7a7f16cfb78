"""Camera views, and a penalty that rejects bad ones before they are rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.geometry import Camera
from twofold.render.classes import FOREGROUND, IDS, SKY
from twofold.render.meshes import Array

NEAREST = 0.3
_SHELL_IDS = [IDS[k] for k in ("wall", "floor", "ceiling", "terrain", "road")]


@dataclass(frozen=True)
class View:
    """A camera in the world: position and target in metres, roll in radians, horizontal field of view in
    degrees.
    """

    origin: tuple[float, float, float]
    target: tuple[float, float, float]
    fov: float
    roll: float = 0.0

    def basis(self) -> tuple[Array, Array, Array]:
        """Unit vectors right, up, forward in the world."""
        f = np.subtract(self.target, self.origin)
        f = f / np.linalg.norm(f)
        r = np.cross(f, [0, 0, 1.0])
        r /= np.linalg.norm(r)
        u = np.cross(r, f)
        c, s = np.cos(self.roll), np.sin(self.roll)
        return c * r + s * u, c * u - s * r, f

    def camera(self, width: int, height: int) -> Camera:
        """The pinhole intrinsics at an image size."""
        f = width / 2 / np.tan(np.radians(self.fov) / 2)
        return Camera(float(f), float(f), (width - 1) / 2, (height - 1) / 2, width, height)

    def rays(self, width: int, height: int) -> Array:
        """Directions through the pixel centres, h*w 3, scaled so that the ray parameter is the depth z."""
        k = self.camera(width, height)
        y, x = np.mgrid[0:height, 0:width]
        r, u, f = self.basis()
        d = f + ((x - k.cx) / k.fx)[..., None] * r - ((y - k.cy) / k.fy)[..., None] * u
        return d.reshape(-1, 3)


def look_at(origin: Array, target: Array, fov: float, tilt: float, roll: float = 0.0) -> View:
    """A view from `origin` in the compass direction of `target`, tilted down by `tilt` degrees."""
    d = np.asarray(target, float)[:2] - np.asarray(origin, float)[:2]
    d = d / (np.linalg.norm(d) + 1e-9)
    t = (origin[0] + d[0], origin[1] + d[1], origin[2] - np.tan(np.radians(tilt)))
    return View(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        (float(t[0]), float(t[1]), float(t[2])),
        float(fov),
        roll,
    )


def penalty(depth: NDArray, instance: NDArray, kinds: NDArray, backface: NDArray, family: str) -> float:
    """Penalty of a small label-only view: 0 is good, 1 or more violates a rule.

    depth, instance, backface: one value a pixel. kinds: semantic id by instance.
    """
    semantic = kinds[instance]
    sky = float((semantic == SKY).mean())
    hit = semantic != SKY
    if not hit.any():
        return 10.0
    near = float((depth < NEAREST).mean())
    count = np.bincount(instance[hit], minlength=len(kinds)) / instance.size
    biggest = float(count.max())
    foreground = float(np.asarray(FOREGROUND)[semantic].mean())
    closed = np.isin(
        semantic, [IDS[k] for k in ("wall", "building", "table", "cabinet", "sofa", "bed", "box", "car")]
    )
    inside = float((backface & closed).mean())
    things = int((count > 0.004).sum())
    shell = float(np.isin(semantic, _SHELL_IDS).mean())
    enough = {"room": 0.10, "outdoor": 0.06, "object": 0.08}[family]
    bad = 0.0
    bad += 3 * (near > 0) + 20 * near
    bad += 2 * (inside > 0.02)
    bad += (1 + biggest) * (biggest > 0.6)
    bad += (1 + sky) * (sky > (0.7 if family == "outdoor" else 0.55))
    bad += (1 + enough - foreground) * (foreground < enough)
    bad += 1.0 * (things < (3 if family == "object" else 4)) + 1.0 * (shell > 0.93)
    return bad
