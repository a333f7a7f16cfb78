"""Cameras, frames of normals, points from depth, and the least-squares fit of one map to another.

A frame is named by the directions of its three axes, as seen in the image:

    RUB  x right, y up,   z to the viewer   (OpenGL; the frame of every normal inside the library)
    LUB  x left,  y up,   z to the viewer   (indoor normal data sets)
    RDB  x right, y down, z to the viewer   (2D-3D-S and Omnidata; only read, in the files of some data sets)
    RDF  x right, y down, z forward         (OpenCV; the frame of points)

A wall that faces the camera has the normal (0, 0, 1) in RUB, LUB and RDB, (0, 0, -1) in RDF.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Two depth steps that differ by more than this fraction of the depth are an edge, not noise.
EDGE = 0.01

# Each frame's axes, as signs relative to RUB.
FRAMES: dict[str, tuple[int, int, int]] = {
    "RUB": (1, 1, 1),
    "LUB": (-1, 1, 1),
    "RDB": (1, -1, 1),
    "RDF": (1, -1, -1),
}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. All numbers are in pixels; the centre of the top-left pixel is (0, 0).

    So the middle of an image of `width` pixels is at cx = (width - 1) / 2. A point (x, y, z) in RDF projects to the
    pixel K (x, y, z), K = [[fx, skew[0], cx], [skew[1], fy, cy], [tilt[0], tilt[1], 1]]. `tilt` (per pixel) is not 0
    where the image plane is not perpendicular to the z axis, as with tilt-shift lenses; only such a camera has a
    `skew`.
    Raises ValueError for sizes and focal lengths that are not positive, or a pixel whose ray points backwards.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    skew: tuple[float, float] = (0.0, 0.0)
    tilt: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.skew, *self.tilt)
        if not all(math.isfinite(n) for n in numbers) or min(self.fx, self.fy) <= 0:
            raise ValueError(
                f"the camera has {numbers}; expected finite parameters and positive focal lengths"
            )
        if min(self.width, self.height) < 1:
            raise ValueError(f"the camera has {self.width}x{self.height} pixels; expected at least 1x1")
        if any(self.tilt) and not bool((self._directions()[2] > 0).all()):
            raise ValueError(f"with the tilt {self.tilt} rays at an edge of the image point backwards")

    @classmethod
    def from_matrix(cls, matrix: Sequence[Sequence[float]], width: int, height: int) -> Camera:
        """The camera of a 3x3 intrinsic matrix K; ValueError when K has another form (skew alone, other size)."""
        rows = [[float(v) for v in row] for row in matrix]
        right = [len(row) for row in rows] == [3, 3, 3] and rows[2][2] == 1
        tilted = right and bool(rows[2][0] or rows[2][1])
        if not right or (not tilted and (rows[0][1] or rows[1][0])):
            raise ValueError(
                f"an intrinsic matrix is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], or of a tilted image plane with "
                f"[p, q, 1] last, not {rows}"
            )
        skew, tilt = (rows[0][1], rows[1][0]), (rows[2][0], rows[2][1])
        return cls(rows[0][0], rows[1][1], rows[0][2], rows[1][2], width, height, skew, tilt)

    def matrix(self) -> Tensor:
        """The intrinsic matrix K, float64 3 3."""
        rows = [[self.fx, self.skew[0], self.cx], [self.skew[1], self.fy, self.cy], [*self.tilt, 1]]
        return torch.tensor(rows, dtype=torch.float64)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the image resized to `width` x `height`."""
        sx, sy = width / self.width, height / self.height
        # Shifted by half a pixel, because the corner of the image stays in place, not the first centre.
        if any(self.tilt):
            return self._moved([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]], width, height)
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return Camera(self.fx * sx, self.fy * sy, cx, cy, width, height)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of the window whose top-left pixel is (left, top). The window may exceed the image."""
        if any(self.tilt):
            return self._moved([[1, 0, -left], [0, 1, -top], [0, 0, 1]], width, height)
        return replace(self, cx=self.cx - left, cy=self.cy - top, width=width, height=height)

    def flipped(self) -> Camera:
        """The camera of the image mirrored left to right."""
        if any(self.tilt):
            # The scene is mirrored too: x changes its sign on both sides of K.
            return self._moved([[-1, 0, self.width - 1], [0, 1, 0], [0, 0, 1]], self.width, self.height, -1)
        return replace(self, cx=self.width - 1 - self.cx)

    def rays(self) -> Tensor:
        """The ray of each pixel: float64 3 h w, RDF, scaled so that z is 1."""
        if any(self.tilt):
            directions = self._directions()
            return directions / directions[2:]
        x = (torch.arange(self.width, dtype=torch.float64) - self.cx) / self.fx
        y = (torch.arange(self.height, dtype=torch.float64) - self.cy) / self.fy
        shape = (self.height, self.width)
        return torch.stack(
            [x.expand(shape), y[:, None].expand(shape), torch.ones(shape, dtype=torch.float64)]
        )

    def _moved(self, pixels: list[list[float]], width: int, height: int, x: int = 1) -> Camera:
        """The camera with pixels transformed by a 3x3 matrix, and the x axis multiplied by the sign ``x``."""
        moved = torch.tensor(pixels, dtype=torch.float64) @ self.matrix()
        moved[:, 0] *= x
        return Camera.from_matrix((moved / moved[2, 2]).tolist(), width, height)

    def _directions(self) -> Tensor:
        """The ray of each pixel, in RDF, of any positive length."""
        x = torch.arange(self.width, dtype=torch.float64).expand(self.height, -1)
        y = torch.arange(self.height, dtype=torch.float64)[:, None].expand(-1, self.width)
        inverse = torch.linalg.inv(self.matrix())
        return torch.einsum("ij,jhw->ihw", inverse, torch.stack([x, y, torch.ones_like(x)]))


def unit(x: Tensor, dim: int = -3) -> Tensor:
    """Vectors along `dim` scaled to length 1; the zero vector stays zero, and has a finite gradient."""
    # From squares, because torch's vector_norm over a leading dimension is about 30 times slower.
    square = (x * x).sum(dim, keepdim=True)
    return x * square.clamp(min=max(1e-24, torch.finfo(x.dtype).tiny)).rsqrt()


def convert_frame(normals: Tensor, source: str, target: str) -> Tensor:
    """Normals *b 3 h w from the frame `source` to the frame `target` (names in FRAMES)."""
    for name in (source, target):
        if name not in FRAMES:
            raise ValueError(f"unknown frame {name!r}; known: {', '.join(FRAMES)}")
    signs = [a * b for a, b in zip(FRAMES[source], FRAMES[target], strict=True)]
    return normals * normals.new_tensor(signs)[:, None, None]


def unproject(depth: Tensor, camera: Camera) -> Tensor:
    """Metres along z, *b 1 h w, to points in metres, *b 3 h w, camera frame RDF."""
    if depth.shape[-3:] != (1, camera.height, camera.width):
        size = f"1 {camera.height} {camera.width}"
        raise ValueError(
            f"the depth is {tuple(depth.shape)}, and the camera has {size}; resize one to the other"
        )
    return depth * camera.rays().to(depth)


def _tangent(points: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring points along `dim` (-1 columns, -2 rows), and where one exists.

    The mean of the forward and backward steps, to reduce noise; where their jumps in z differ by more than
    EDGE of the depth there is an edge, and the step with the smaller jump is used.
    `points` are *b 3 h w with NaN where unknown; both results have that size.
    """
    step = points.diff(dim=dim)
    rim = torch.full_like(points.narrow(dim, 0, 1), math.nan)
    forward, backward = torch.cat([step, rim], dim), torch.cat([rim, step], dim)
    ahead, behind = (s[..., 2:3, :, :].abs().nan_to_num(nan=math.inf) for s in (forward, backward))
    smaller = torch.where(ahead <= behind, forward, backward)
    smooth = (ahead - behind).abs() <= EDGE * points[..., 2:3, :, :]
    tangent = torch.where(smooth, (forward + backward) / 2, smaller)
    return tangent.nan_to_num(nan=0.0), torch.minimum(ahead, behind).isfinite()


def normals_from_depth(depth: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Unit normals (*b 3 h w, RUB, facing the camera) of metres along z (*b 1 h w), and where they hold.

    Unknown depth is anything not finite or not positive. A normal needs a known neighbour along the row and
    one along the column; elsewhere it is zero and `valid` (bool *b 1 h w) is False. Exact on planes.
    """
    known = depth.isfinite() & (depth > 0)
    # float64, because neighbours differ in the last digits when the surface is far away.
    points = unproject(torch.where(known, depth.double(), math.nan), camera)
    along, has_row = _tangent(points, -1)
    down, has_column = _tangent(points, -2)
    normal = unit(torch.linalg.cross(down, along, dim=-3))
    toward = (normal * points.nan_to_num(nan=0.0)).sum(-3, keepdim=True) <= 0
    normal = torch.where(toward, normal, -normal)
    valid = known & has_row & has_column & (normal != 0).any(-3, keepdim=True)
    return convert_frame(torch.where(valid, normal, 0.0), "RDF", "RUB").to(depth.dtype), valid


def align_affine(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[float, float]:
    """The (scale, shift) that minimise sum (scale * prediction + shift - target)^2 over `valid`.

    The three have one shape; values outside `valid` have no influence. Solved in float64. For a constant
    prediction the solution of least norm is returned. Raises ValueError when no pixel is valid or a valid one
    is not finite.
    """
    p, d = prediction[valid].double(), target[valid].double()
    if p.numel() == 0:
        raise ValueError("there is no valid pixel to align to; exclude this image and report it")
    if not (p.isfinite().all() and d.isfinite().all()):
        raise ValueError("a valid pixel is NaN or infinite; mask it, or fix the predictor")
    mean_p, mean_d = p.mean(), d.mean()
    centred = p - mean_p
    # Below this the spread is rounding of the mean: the prediction is constant.
    if centred.abs().max() <= 1e-12 * p.abs().max():
        share = mean_d / (mean_p**2 + 1)
        return float(mean_p * share), float(share)
    scale = (centred * (d - mean_d)).sum() / (centred**2).sum()
    return float(scale), float(mean_d - scale * mean_p)
