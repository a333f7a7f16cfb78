"""Reading OBJ models with their materials, out of an archive, into meshes with creased normals."""

from __future__ import annotations

import posixpath
import zipfile
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from twofold.render.meshes import Array, Mesh

CREASE = 40.0
"""Degrees between two faces from which on their common edge is sharp."""
_IMAGE_SIZE = 128


@dataclass(frozen=True)
class MaterialMesh:
    """One material of a model: the mesh it covers, its sRGB colour, and optionally a texture image n n 3 (uint8,
    top row first).
    """

    mesh: Mesh
    color: tuple[float, float, float]
    image: NDArray[np.uint8] | None


def creased(vertices: Array, faces: NDArray[np.int64], uv: Array, angle: float = CREASE) -> Mesh:
    """A mesh whose corners average the normals of the neighbouring faces that bend by less than `angle`
    degrees.
    """
    v = vertices[faces]
    area = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    unit = area / (np.linalg.norm(area, axis=1, keepdims=True) + 1e-30)
    _, place = np.unique(np.round(vertices, 5), axis=0, return_inverse=True)
    corner = place.reshape(-1)[faces].ravel()
    order = np.argsort(corner, kind="stable")
    face = order // 3
    start = np.flatnonzero(np.r_[True, np.diff(corner[order]) > 0])
    count = np.diff(np.r_[start, len(order)])
    # All pairs of corners at one place: each corner meets the `count` corners of its group.
    mine = np.repeat(np.arange(len(order)), np.repeat(count, count))
    group_start = np.repeat(np.repeat(start, count), np.repeat(count, count))
    first = np.repeat(np.cumsum(np.r_[0, np.repeat(count, count)])[:-1], np.repeat(count, count))
    other = group_start + np.arange(len(mine)) - first
    near = (unit[face[mine]] * unit[face[other]]).sum(1) > np.cos(np.radians(angle))
    total = np.zeros((len(order), 3))
    for k in range(3):
        total[:, k] = np.bincount(mine, weights=area[face[other], k] * near, minlength=len(order))
    normals = np.zeros((len(order), 3))
    normals[order] = total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-30)
    index = np.arange(len(order)).reshape(-1, 3)
    return Mesh(vertices[faces].reshape(-1, 3), index, uv.reshape(-1, 2), normals)


def read_obj(archive: zipfile.ZipFile, path: str) -> list[MaterialMesh]:
    """The materials of a model in its own frame and unit, faces with more than three corners cut into fans.

    ValueError for an OBJ without faces; KeyError when a file is missing in the archive.
    """
    lines = archive.read(path).decode("latin1").splitlines()
    v = _numbers(lines, "v ", 3)
    vt = _numbers(lines, "vt ", 2)
    faces: dict[str, list[tuple[int, int, int, int, int, int]]] = {}
    current, library = faces.setdefault("", []), ""
    for line in lines:
        if line.startswith("f "):
            corners = [_corner(word, len(v), len(vt)) for word in line.split()[1:]]
            for b, c in pairwise(corners[1:]):
                current.append((corners[0][0], b[0], c[0], corners[0][1], b[1], c[1]))
        elif line.startswith("usemtl "):
            current = faces.setdefault(line[7:].strip(), [])
        elif line.startswith("mtllib "):
            library = line[7:].strip()
    materials = _materials(archive, posixpath.join(posixpath.dirname(path), library)) if library else {}
    meshes = []
    for name, rows in faces.items():
        if not rows:
            continue
        table = np.array(rows, np.int64)
        p = v[table[:, :3]]
        keep = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1) > 1e-14
        table = table[keep]
        if not len(table):
            continue
        uv = vt[table[:, 3:]] if len(vt) and (table[:, 3:] >= 0).all() else None
        color, image = materials.get(name, ((0.6, 0.6, 0.6), None))
        mesh = creased(v, table[:, :3], np.zeros((len(table), 3, 2)) if uv is None else uv)
        meshes.append(MaterialMesh(mesh, color, image if uv is not None else None))
    if not meshes:
        raise ValueError(f"{path} has no faces")
    return meshes


def _numbers(lines: list[str], key: str, width: int) -> Array:
    """All rows that start with `key`, n width."""
    rows = [line.split()[1 : 1 + width] for line in lines if line.startswith(key)]
    return np.array(rows, np.float64).reshape(-1, width)


def _corner(word: str, vertices: int, textures: int) -> tuple[int, int]:
    """'3/7/2' to zero-based indices of the vertex and its texture coordinate (-1: none);
    negative ones count back.
    """
    parts = word.split("/")
    a = int(parts[0])
    b = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    return (a - 1 if a > 0 else vertices + a), (b - 1 if b > 0 else textures + b if b < 0 else -1)


Material = tuple[tuple[float, float, float], NDArray[np.uint8] | None]


def _materials(archive: zipfile.ZipFile, path: str) -> dict[str, Material]:
    """Colour and image of each material of an MTL file; none when the file is missing."""
    try:
        lines = archive.read(path).decode("latin1").splitlines()
    except KeyError:
        return {}
    found: dict[str, Material] = {}
    name = ""
    for line in lines:
        words = line.split()
        if line.startswith("newmtl "):
            name = line[7:].strip()
            found[name] = ((0.6, 0.6, 0.6), None)
        elif words and words[0] == "Kd" and len(words) >= 4:
            r, g, b = (float(w) for w in words[1:4])
            found[name] = ((r, g, b), found[name][1])
        elif words and words[0] == "map_Kd":
            found[name] = (
                found[name][0],
                _read_texture(archive, posixpath.join(posixpath.dirname(path), words[-1])),
            )
    return found


def _read_texture(archive: zipfile.ZipFile, path: str) -> NDArray[np.uint8] | None:
    """A texture image as a small square; None when it is missing or cannot be read."""
    from PIL import Image

    from twofold.image.errors import ImageError, check_size, decoding
    from twofold.image.opening import open_image_file
    from twofold.io.limits import pixel_limit

    try:
        with decoding(path):
            image = open_image_file(archive.read(path), path)
            check_size(path, *image.size, pixel_limit())
            return np.asarray(image.convert("RGB").resize((_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.BOX))
    except ImageError:
        return None
