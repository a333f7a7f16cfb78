"""A room seen by a pinhole camera, exactly: what the fake data sets of depth and normals are images of."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from twofold.geometry import Camera, convert_frame

SIZE = (24, 32)

# Walls as (the axis, in RDF, that they are square to; where they stand on it, in metres).
WALLS = ((0, -1.5), (0, 1.2), (1, -1.3), (1, 1.0), (2, 4.0))


def camera(size: tuple[int, int] = SIZE) -> Camera:
    """A camera of some 60 degrees, its middle off the image's."""
    height, width = size
    return Camera(0.9 * width, 0.92 * width, width / 2 - 1.0, height / 2 - 0.25, width, height)


def seen(view: Camera, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Metres along z (float64 h w), and the walls' normals in RDF (float64 h w 3), facing the camera."""
    rays = view.rays().numpy()
    z = np.full(rays.shape[1:], np.inf)
    normals = np.zeros((*rays.shape[1:], 3))
    for axis, place in WALLS:
        with np.errstate(divide="ignore"):
            here = (place + (shift if axis == 2 else 0)) / rays[axis]
        nearer = (here > 0) & (here < z)
        z = np.where(nearer, here, z)
        vector = np.zeros(3)
        vector[axis] = -math.copysign(1, place)
        normals[nearer] = vector
    return z, normals


def framed(normals: np.ndarray, frame: str) -> np.ndarray:
    """Normals h w 3 in RDF, said in another frame."""
    x = torch.from_numpy(normals).permute(2, 0, 1)
    return convert_frame(x, "RDF", frame).permute(1, 2, 0).numpy()


def photo(path: Path, size: tuple[int, int] = SIZE, seed: int = 0, **options) -> None:
    """A smooth image, of the suffix's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    levels = np.stack([x * 3 + 20, y * 3 + seed, (x + y) * 2], -1) % 256
    Image.fromarray(levels.astype(np.uint8)).save(path, **options)


def png(path: Path, array: np.ndarray) -> None:
    """An 8- or 16-bit PNG of h w or h w 3, written byte by byte, because Pillow has no 16-bit colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = array.shape[:2]
    bits, color = array.dtype.itemsize * 8, 2 if array.ndim == 3 else 0
    assert array.dtype.kind == "u" and bits in (8, 16)
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in array)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def npy(path: Path, array: np.ndarray) -> None:
    """A .npy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def levels(z: np.ndarray, unit: float) -> np.ndarray:
    """Metres as 16-bit levels of `unit` metres, rounded; what is not finite becomes 0."""
    return np.rint(np.where(np.isfinite(z), z, 0) / unit).astype(np.uint16)


def colors(normals: np.ndarray, frame: str, top: int = 255, holes: int = 0) -> np.ndarray:
    """Normals in RDF as an image of them in a frame, the first `holes` rows black."""
    found = np.rint((framed(normals, frame) + 1) / 2 * top).astype(np.uint8 if top == 255 else np.uint16)
    found[:holes] = 0
    return found
