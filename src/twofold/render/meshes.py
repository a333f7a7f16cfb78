"""Triangle meshes and the few primitives everything is built of.

World frame: z up, metres. Texture coordinates are in metres too: patterns have one scale everywhere.
Every vertex carries a normal: flat parts repeat their vertices, curved parts share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """vertices n 3 (metres), faces m 3 (counter-clockwise from outside), uv n 2 (metres), normals n 3
    (unit).
    """

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array
    normals: Array

    def moved(self, by: ArrayLike = (0, 0, 0), turn: float = 0.0) -> Mesh:
        """Turned by `turn` radians about z, then shifted."""
        r = rotation_z(turn)
        return replace(self, vertices=self.vertices @ r.T + np.asarray(by, float), normals=self.normals @ r.T)

    def rotated(self, r: Array) -> Mesh:
        """Rotated by the 3 3 matrix `r` about the origin."""
        return replace(self, vertices=self.vertices @ r.T, normals=self.normals @ r.T)

    def scaled(self, by: ArrayLike) -> Mesh:
        """Scaled about the origin, per axis; texture coordinates grow by the mean scale."""
        s = np.broadcast_to(np.asarray(by, float), (3,))
        n = self.normals / s
        n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-12
        return replace(self, vertices=self.vertices * s, normals=n, uv=self.uv * s.mean())

    def shifted_uv(self, by: ArrayLike) -> Mesh:
        """The same shape showing another part of its texture."""
        return replace(self, uv=self.uv + np.asarray(by, float))

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner."""
        return self.vertices.min(0), self.vertices.max(0)


def rotation_z(angle: float) -> Array:
    """3 3 rotation about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_to(axis: ArrayLike) -> Array:
    """3 3 rotation that takes +z to `axis`."""
    z = np.asarray(axis, float)
    z = z / np.linalg.norm(z)
    helper = np.array([1.0, 0, 0]) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def rotation_x(angle: float) -> Array:
    """3 3 rotation about x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def join(parts: Sequence[Mesh]) -> Mesh:
    """One mesh of many."""
    offset = np.cumsum([0] + [len(p.vertices) for p in parts[:-1]])
    return Mesh(
        np.concatenate([p.vertices for p in parts]),
        np.concatenate([p.faces + o for p, o in zip(parts, offset, strict=True)]),
        np.concatenate([p.uv for p in parts]),
        np.concatenate([p.normals for p in parts]),
    )


def flat(vertices: Array, faces: NDArray[np.int64], uv: Array) -> Mesh:
    """A faceted mesh: every triangle gets its own three vertices and its own normal."""
    v = vertices[faces]
    n = cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-12
    index = np.arange(3 * len(faces)).reshape(-1, 3)
    return Mesh(v.reshape(-1, 3), index, uv[faces].reshape(-1, 2), np.repeat(n, 3, 0))


def smooth(vertices: Array, faces: NDArray[np.int64], uv: Array) -> Mesh:
    """A curved mesh: area-weighted normals, shared between vertices at the same place (so that seams do
    not show).
    """
    v = vertices[faces]
    area = cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    _, place = np.unique(np.round(vertices, 6), axis=0, return_inverse=True)
    place = place.reshape(-1)
    total = np.zeros((place.max() + 1, 3))
    for k in range(3):
        np.add.at(total, place[faces[:, k]], area)
    n = total[place]
    n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-12
    return Mesh(vertices, faces, uv, n)


def grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Triangles of a rows x columns lattice of vertices (row-major)."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).ravel()
    b = a + columns
    return np.concatenate([np.stack([a, b, b + 1], 1), np.stack([a, b + 1, a + 1], 1)])


def _cube() -> tuple[Array, NDArray[np.int64], Array, Array, NDArray[np.int64]]:
    """Vertices 24 3 of the cube [-1, 1]^3, faces, uv in [0, 1], normals, and each vertex's two texture axes."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    vertices, uv, normals, axes = [], [], [], []
    for axis in range(3):
        a, b = ((1, 2), (0, 2), (0, 1))[axis]
        for sign in (-1.0, 1.0):
            q = np.zeros((4, 3))
            q[:, axis], q[:, a], q[:, b] = sign, corners[:, 0], corners[:, 1]
            n = np.zeros(3)
            n[axis] = sign
            if np.dot(np.cross(q[1] - q[0], q[2] - q[0]), n) < 0:
                q = q[::-1]
            vertices.append(q)
            uv.append((q[:, [a, b]] + 1) / 2)
            normals.append(np.tile(n, (4, 1)))
            axes.append(np.tile([a, b], (4, 1)))
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(6)])
    return np.concatenate(vertices), faces, np.concatenate(uv), np.concatenate(normals), np.concatenate(axes)


_CUBE = _cube()


def box(size: ArrayLike, at: ArrayLike = (0, 0, 0)) -> Mesh:
    """A box of the given size standing on `at` (centre of its bottom)."""
    size = np.asarray(size, float)
    vertices, faces, uv, normals, axes = _CUBE
    shift = np.asarray(at, float) + np.array([0, 0, size[2] / 2])
    return Mesh(vertices * size / 2 + shift, faces, uv * size[axes], normals)


def cross(a: Array, b: Array) -> Array:
    """Cross products of rows n 3: numpy's own, without its many checks."""
    out = np.empty_like(a)
    out[:, 0] = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    out[:, 1] = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    out[:, 2] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return out


def lathe(radius: ArrayLike, height: ArrayLike, sides: int = 28, faceted: bool = False) -> Mesh:
    """The profile (radius over height, bottom to top, outside going up) turned about z."""
    r, z = np.asarray(radius, float), np.asarray(height, float)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    a, rr = np.meshgrid(angle, r, indexing="ij")
    zz = np.broadcast_to(z, a.shape)
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(r), np.diff(z)))])
    v = np.stack([rr * np.cos(a), rr * np.sin(a), zz], -1).reshape(-1, 3)
    uv = np.stack([a * r.max(), np.broadcast_to(along, a.shape)], -1).reshape(-1, 2)
    faces = grid_faces(sides + 1, len(r))
    p = v[faces]
    keep = np.linalg.norm(cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1) > 1e-12
    return (flat if faceted else smooth)(v, faces[keep], uv)


def cylinder(radius: float, height: float, sides: int = 20, top: float | None = None) -> Mesh:
    """A closed cylinder (or cone frustum) on the origin, with sharp rims."""
    t = radius if top is None else top
    side = lathe([radius, t], [0, height], sides)
    return join([side, lathe([t, 0], [height, height], sides), lathe([0, radius], [0, 0], sides)])


def tube(path: ArrayLike, radius: ArrayLike, sides: int = 10) -> Mesh:
    """A round tube along a polyline (k 3), with pointed-off round ends; radius may vary along it."""
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radius, float), (len(p),)).copy()
    d = np.gradient(p, axis=0)
    d /= np.linalg.norm(d, axis=1, keepdims=True) + 1e-12
    p = np.concatenate([[p[0] - d[0] * r[0] * 0.01], p, [p[-1] + d[-1] * r[-1] * 0.01]])
    r, d = np.concatenate([[1e-4], r, [1e-4]]), np.concatenate([d[:1], d, d[-1:]])
    x = np.cross(d, np.where(np.abs(d[:, 2:]) < 0.9, [[0, 0, 1.0]], [[0, 1.0, 0]]))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(d, x)
    a = np.linspace(0, 2 * np.pi, sides + 1)[:, None, None]
    v = p + r[:, None] * (np.cos(a) * x + np.sin(a) * y)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
    uv = np.stack(np.broadcast_arrays(a[:, :, 0] * r.max(), along), -1)
    return smooth(v.reshape(-1, 3), grid_faces(sides + 1, len(p)), uv.reshape(-1, 2))


def capsule(start: ArrayLike, end: ArrayLike, radius: float, radius_end: float | None = None) -> Mesh:
    """A limb: a tube with hemispherical ends."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    r0, r1 = radius, radius if radius_end is None else radius_end
    t = np.linspace(-np.pi / 2, np.pi / 2, 14)
    length = np.linalg.norm(b - a)
    z = np.where(t < 0, r0 * np.sin(t), length + r1 * np.sin(t))
    m = lathe(np.where(t < 0, r0, r1) * np.cos(t), z, 20)
    return Mesh(m.vertices, m.faces, m.uv, m.normals).rotated(rotation_to(b - a)).moved(a)


def rounded(size: ArrayLike, at: ArrayLike = (0, 0, 0), sharp: float = 0.25, n: int = 20) -> Mesh:
    """A superellipsoid filling the box `size` on `at`: 1 = ellipsoid, 0.1 = almost a box (Barr 1981)."""
    u, v = np.meshgrid(
        np.linspace(-np.pi, np.pi, 2 * n + 1), np.linspace(-np.pi / 2, np.pi / 2, n + 1), indexing="ij"
    )

    def power(x: Array) -> Array:
        return np.sign(x) * np.abs(x) ** sharp

    size = np.asarray(size, float)
    p = np.stack(
        [power(np.cos(v)) * power(np.cos(u)), power(np.cos(v)) * power(np.sin(u)), power(np.sin(v))], -1
    )
    p = p.reshape(-1, 3) * size / 2
    uv = np.stack(
        [(u / np.pi + 1) * size[:2].mean(), (v / np.pi + 0.5) * (size[2] + size[:2].mean()) / 2], -1
    )
    return smooth(p, grid_faces(2 * n + 1, n + 1), uv.reshape(-1, 2)).moved(
        np.asarray(at, float) + np.array([0, 0, size[2] / 2])
    )


def ball(radius: float, at: ArrayLike = (0, 0, 0)) -> Mesh:
    """A sphere standing on `at`."""
    return rounded((2 * radius,) * 3, at, sharp=1.0, n=16)


def torus(ring: float, pipe: float) -> Mesh:
    """A torus lying on the ground."""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 33), np.linspace(0, 2 * np.pi, 15), indexing="ij")
    r = ring + pipe * np.cos(v)
    p = np.stack([r * np.cos(u), r * np.sin(u), pipe * np.sin(v) + pipe], -1).reshape(-1, 3)
    uv = np.stack([u * ring, v * pipe], -1).reshape(-1, 2)
    return smooth(p, grid_faces(33, 15), uv)


def sheet(points: Array) -> Mesh:
    """A curved surface through a rows columns 3 lattice of points."""
    rows, columns = points.shape[:2]
    du = np.linalg.norm(np.diff(points, axis=0), axis=2).mean(1)
    dv = np.linalg.norm(np.diff(points, axis=1), axis=2).mean(0)
    u, v = np.meshgrid(np.r_[0, np.cumsum(du)], np.r_[0, np.cumsum(dv)], indexing="ij")
    return smooth(points.reshape(-1, 3), grid_faces(rows, columns), np.stack([u, v], -1).reshape(-1, 2))


def cards(centres: Array, tips: Array, sides: Array) -> Mesh:
    """Many flat leaves at once: diamonds at `centres` with half axes `tips` and `sides` (each k 3)."""
    v = np.stack([centres - tips, centres + sides, centres + tips, centres - sides], 1)
    k = len(v)
    n = np.cross(tips, sides)
    n = -n / (np.linalg.norm(n, axis=1, keepdims=True) + 1e-12)
    length, width = np.linalg.norm(tips, axis=1), np.linalg.norm(sides, axis=1)
    zero = np.zeros(k)
    uv = np.stack(
        [np.stack(c, 1) for c in ((zero, width), (length, 2 * width), (2 * length, width), (length, zero))], 1
    )
    faces = (np.array([[0, 1, 2], [0, 2, 3]]) + 4 * np.arange(k)[:, None, None]).reshape(-1, 3)
    return Mesh(v.reshape(-1, 3), faces, uv.reshape(-1, 2), np.repeat(n, 4, 0))
