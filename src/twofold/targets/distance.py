"""Distances along the camera's z axis, in metres."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..geometry import Camera
from ..image.raster_format import RasterFormat
from ..visualization import color_depth, scaled_depth
from .depth_checks import depth_problem
from .levels import CODEC_TOP, WHOLE_CODECS, Levels, matches
from .spec import Descriptor, TargetSpec

_FARTHEST = 10_000.0  # metres, above which a depth is likely to have the wrong scale


class Distance(TargetSpec):
    """Depth in metres; +inf is the sky, which is known to be far, but not valid."""

    is_distance = True

    def _select(self, raw: Tensor, how: Descriptor, stored: RasterFormat) -> tuple[Tensor, int]:
        """See `TargetSpec._select`; fewer than 8 bits are refused."""
        if stored.palette is None and stored.raster and 0 < stored.bits < 8:
            raise ValueError(
                f"a depth map has {stored.bits} bits; expected 8 or more. Is it a preview image?"
            )
        return super()._select(raw, how, stored)

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.decode`: depth along z, euclidean distance or disparity to metres along z."""
        raw = stored.values
        if raw.shape[0] != 1:
            raise ValueError(f"a depth map has 1 channel, this has {raw.shape[0]}. Is it a preview image?")
        if "scale" not in how and how.get("codec") in WHOLE_CODECS:
            raise ValueError(
                "a depth stored as whole numbers needs 'scale' (metres per unit) in its descriptor"
            )
        z = raw * float(how.get("scale", 1.0)) + float(how.get("offset", 0.0))
        kind = how.get("kind", "z")
        if kind == "euclidean":
            if camera is None:
                raise ValueError("a euclidean depth needs the camera's K in its row")
            z = z / torch.linalg.vector_norm(camera.rays(), dim=0, keepdim=True).float()
        elif kind == "disparity":
            z = _by_disparity(z, how, camera)
        elif kind != "z":
            raise ValueError(f"unknown kind of depth {kind!r}; expected z, euclidean or disparity")
        unknown = matches(raw, how.get("invalid"))
        far = matches(raw, how.get("infinite", "inf"))
        if how.get("codec") not in WHOLE_CODECS:
            far |= raw == math.inf  # infinity in a float map is the sky, whatever number an integer map uses
        far &= ~unknown
        least, most = how.get("valid_range") or (0.0, math.inf)
        valid = (z > float(least)) & (z < float(most)) & (z > 0) & ~unknown & ~far
        other = torch.where(z.isfinite(), z, 0.0) if how.get("keep_invalid") else torch.zeros_like(z)
        return torch.where(valid, z, torch.where(far, math.inf, other)), valid

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """See `TargetSpec.encode`."""
        whole = how["codec"] in CODEC_TOP
        raw = (target - float(how.get("offset", 0.0))) / float(how.get("scale", 1.0))
        far = (target == math.inf) & ~valid
        top = how.get("infinite") if whole else math.inf
        if top is None and bool(far.any()):
            raise ValueError("this depth has sky (+inf), and its codec has no value for it; set 'infinite'")
        if whole:
            # At least 1, because 0 is "unknown"; below the value of the sky.
            raw = raw.round().clamp(min=1)
            if top is not None and bool((raw[valid] >= top).any()):
                most = f"{float(target[valid].max()):g} m"
                raise ValueError(f"a depth of {most} does not fit the codec; mark it +inf, or change 'scale'")
        return torch.where(valid, raw, torch.where(far, float(top or 0), 0.0))

    def check(self, target: Tensor, valid: Tensor) -> None:
        """See `TargetSpec.check`."""
        super().check(target, valid)
        found = target[valid.expand_as(target)]
        if found.numel() and not float(found.min()) > 0:
            raise ValueError(f"depth is {float(found.min()):g} where it is valid; a valid depth is above 0")

    def check_array(self, array: np.ndarray, how: Descriptor) -> None:
        """See `TargetSpec.check_array`; whole numbers need a scale."""
        if array.dtype.kind in "iub" and "scale" not in how:
            raise ValueError("a depth stored as whole numbers needs 'scale' (metres per unit)")

    def problem(self, target: Tensor, valid: Tensor, how: Descriptor, raw: np.ndarray) -> str:
        """See `depth_checks`."""
        return depth_problem(target, valid, how, raw)

    def value_warning(self, target: Tensor, valid: Tensor) -> str:
        """See `TargetSpec.value_warning`."""
        high = float(target[valid].max())
        return f"depth reaches {high:g} m; is the 'scale' of the header right?" if high > _FARTHEST else ""

    def lossless_storage(self, how: Descriptor) -> dict[str, Any]:
        """Whole numbers and their scale where the source had them, else float32."""
        keep = {key: how[key] for key in ("scale", "offset", "invalid", "infinite") if key in how}
        # All entries are set, because the writer's defaults would replace a missing one.
        if how.get("codec", "") == "png16" and how.get("kind", "z") == "z":
            return {"codec": "png16", "kind": "z", "unit": "m", "invalid": [], "infinite": None, **keep}
        return {"codec": "npy", "kind": "z", "unit": "m", "scale": 1.0, "invalid": [], "infinite": "inf"}

    def zoom(self, target: Tensor, scale: float) -> Tensor:
        """See `TargetSpec.zoom`."""
        return target / scale

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """Near is red, far is blue; see `visualization.color_depth`."""
        return color_depth(scaled_depth(target, valid), valid | target.isinf())


def _by_disparity(pixels: Tensor, how: Descriptor, camera: Camera | None) -> Tensor:
    """Disparity in pixels to metres along z; 0 where it is not positive."""
    focal = how.get("focal", None if camera is None else camera.fx)
    if not how.get("baseline") or focal is None:
        raise ValueError("a disparity needs its 'baseline' (metres), and 'focal' (pixels) or the camera's K")
    return torch.where(pixels > 0, float(how["baseline"]) * float(focal) / pixels, 0.0)
