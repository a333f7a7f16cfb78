"""Unit vectors in the frame RUB: surface normals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import Camera, convert_frame, unit
from ..visualization import color_normals
from .levels import CODEC_TOP, Levels, matches
from .spec import Descriptor, TargetSpec

_LENGTH_ERROR = 0.05


class Direction(TargetSpec):
    """Unit vectors in RUB (x right, y up, z to the viewer); zero where unknown."""

    is_direction = True
    has_range = False

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.decode`: vectors of the file's frame to RUB, of length 1."""
        if "frame" not in how:
            raise ValueError("normals need a 'frame' (RUB, LUB or RDF) in their descriptor")
        vectors = stored_vectors(stored.values, how)
        square = (vectors * vectors).sum(0, keepdim=True)
        # A zero vector has no direction; NaN and infinity fail both comparisons.
        valid = (square > 0.25) & (square < math.inf) & ~matches(stored.values, how.get("invalid", "zero"))
        normals = unit(convert_frame(torch.where(valid, vectors, 0.0), how["frame"], "RUB"))
        if how.get("facing") == "camera":
            if camera is None:
                raise ValueError("'facing': 'camera' needs the camera's K in the row")
            normals = torch.where(facing(normals, camera), normals, -normals)
        return normals, valid

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """See `TargetSpec.encode`."""
        vectors = torch.where(valid, convert_frame(target, "RUB", how["frame"]), 0.0)
        top = CODEC_TOP.get(how["codec"])
        if top is None:
            # Half floats: an error of at most 0.03 degrees at half the size.
            return vectors.half() if how["codec"] in ("npy", "npz") else vectors
        return torch.where(valid, ((vectors + 1) / 2 * top).round(), 0.0)

    def check(self, target: Tensor, valid: Tensor) -> None:
        """See `TargetSpec.check`."""
        super().check(target, valid)
        length = torch.linalg.vector_norm(target.float(), dim=0, keepdim=True)[valid]
        if bool(((length - 1).abs() > _LENGTH_ERROR).any()):
            ends = f"{float(length.min()):.3g} to {float(length.max()):.3g}"
            raise ValueError(f"normals have lengths from {ends}; pass unit vectors in RUB, not colours")

    def resize(self, target: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.resize`; vectors are renormalized."""
        resized, mask = super().resize(target, valid, size)
        return self.normalize(resized, mask), mask

    def resize_prediction(self, prediction: Tensor, size: tuple[int, int]) -> Tensor:
        """See `TargetSpec.resize_prediction`; vectors are renormalized."""
        return unit(super().resize_prediction(prediction, size))

    def normalize(self, target: Tensor, valid: Tensor) -> Tensor:
        """Unit vectors where valid, else zero."""
        return torch.where(valid, unit(target), 0)

    def flip(self, target: Tensor) -> Tensor:
        """See `TargetSpec.flip`; x changes its sign."""
        return target.flip(-1) * target.new_tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1)

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """See `visualization.color_normals`."""
        return color_normals(target, valid)


def stored_vectors(raw: Tensor, how: Descriptor) -> Tensor:
    """Stored normals ``3 h w`` as vectors in the file's frame, with their stored length."""
    if raw.shape[0] != 3:
        raise ValueError(f"a map of normals has 3 channels, this has {raw.shape[0]}")
    if how.get("codec") == "png":
        raise ValueError("normals in a PNG need the 'codec' png8 or png16 in their descriptor")
    top = CODEC_TOP.get(how.get("codec", ""))
    return raw if top is None else raw / top * 2 - 1


def facing(normals: Tensor, camera: Camera | None) -> Tensor:
    """Where normals (``3 h w``, RUB) face the camera, bool ``1 h w``; without a camera, where z is positive."""
    if camera is None:
        return normals[2:3] > 0
    rays = convert_frame(camera.rays(), "RDF", "RUB")
    return (normals * rays.to(normals)).sum(0, keepdim=True) < 0
