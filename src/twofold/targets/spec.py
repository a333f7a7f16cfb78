"""What the numbers of a target mean, and what is done with its maps: storage, resizing, mirroring, colours.

A *target* is a map of a sample, by name: ``depth``, ``normals``. Targets of one kind share a class; to add a kind is to
write one subclass of `TargetSpec`, to add a target one line in `targets.TARGETS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..geometry import Camera
from ..image import resize_map
from ..image.raster_format import RasterFormat
from ..visualization import color_image, color_mask, scaled_depth
from . import levels
from .levels import CODEC_TOP, Levels

# How a target is stored: a header's ``targets[name]``, with the row's own entries over it; see `data.codecs`.
Descriptor = Mapping[str, Any]


@dataclass(frozen=True)
class TargetSpec:
    """A target whose values are stored as they are, up to ``scale`` and ``offset``.

    Attributes:
        name: of the target, as in ``Sample.targets``.
        channels: of its map; 0 for a target that twofold does not know.
        unit: of its values.
        description: what the values mean.
        is_interpolable: whether a value between two values is a value; False for ids.
        storage: the descriptor that `data.FolderWriter` uses by default; empty for none.
    """

    name: str
    channels: int = 0
    unit: str = ""
    description: str = ""
    is_interpolable: bool = True
    storage: Mapping[str, Any] = field(default_factory=dict, hash=False)

    # Whether values are distances, which a prediction may know up to scale and shift only.
    is_distance = False
    # Whether values are unit vectors, in a frame of `geometry.FRAMES`.
    is_direction = False
    # Whether values are ids, of classes or of objects.
    is_ids = False
    # Whether values go from 0 (none) to 1 (all), of which a label normally has both.
    is_share = False
    # Whether values are heatmaps of points, a channel each.
    is_points = False
    # Whether a map's smallest and largest value are informative.
    has_range = True

    def read_levels(self, raw: Tensor, how: Descriptor, stored: RasterFormat | None) -> Levels:
        """The numbers of a stored map that hold the target.

        Args:
            raw: ``c h w``, as `image.read_map` gives it.
            how: the descriptor; ``channel`` selects one channel of several.
            stored: format of the file; None where only the codec is known.

        Raises:
            ValueError: which channel, or which number of a palette, holds the target is unknown.
        """
        stored = levels.format_of(how) if stored is None else stored
        if "channel" in how:
            values, bits = levels.channel(raw, int(how["channel"])), stored.bits
        else:
            values, bits = self._select(raw, how, stored)
        return Levels(values, bits, stored.raster, stored.lossy)

    def _select(self, raw: Tensor, how: Descriptor, stored: RasterFormat) -> tuple[Tensor, int]:
        """The stored map ``c h w`` without what is not data (opacity, palette), and the bits of its numbers."""
        if not self.channels:
            return raw, stored.bits
        if stored.palette is not None:
            return self._from_palette(raw, how, torch.from_numpy(stored.palette))
        if stored.alpha:
            raw = levels.without_alpha(self.name, raw, stored)
        return raw, stored.bits

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """Stored levels to the target ``c h w`` float32 in its unit, and where it is valid, bool ``1 h w``.

        Raises:
            ValueError: the descriptor is incomplete, or the values cannot be those of the target.
        """
        value = stored.values * float(how.get("scale", 1.0)) + float(how.get("offset", 0.0))
        valid = value.isfinite().all(0, keepdim=True) & ~levels.matches(stored.values, how.get("invalid"))
        return torch.where(valid, value, 0.0), valid

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """A target to the numbers that a codec stores; the inverse of `decode`.

        Raises:
            ValueError: a value that the codec cannot store.
        """
        raw = (target - float(how.get("offset", 0.0))) / float(how.get("scale", 1.0))
        if how["codec"] not in CODEC_TOP:
            return torch.where(valid, raw, math.nan)
        return torch.where(valid, raw.round(), levels.ignored(valid, {"ignore": how.get("invalid", [])}))

    def check(self, target: Tensor, valid: Tensor) -> None:
        """ValueError when valid values of a target to be written are not in its unit."""
        found = target[valid.expand_as(target)]
        if found.numel() and not bool(found.isfinite().all()):
            raise ValueError(f"{self.name} is NaN or infinite where it is valid; mark it as not valid")

    def check_array(self, array: np.ndarray, how: Descriptor) -> None:
        """ValueError when the type of a stored array cannot hold the target as ``how`` describes it."""

    def problem(self, target: Tensor, valid: Tensor, how: Descriptor, raw: np.ndarray) -> str:
        """What is impossible about a decoded target of the stored array ``raw``, and what to do; empty for nothing."""
        return ""

    def doubt(self, target: Tensor, valid: Tensor) -> str:
        """What is unlikely about a decoded target with a valid value, and what to do; empty for nothing."""
        values = target[valid.expand_as(target)]
        low, high = float(values.min()), float(values.max())
        if self.unit == "0 to 1" and not (low >= 0 and high <= 1):
            return f"{self.name} goes from {low:g} to {high:g}, not 0 to 1; give its 'scale'"
        return ""

    def lossless_storage(self, how: Descriptor) -> dict[str, Any]:
        """A descriptor to write a target by that was read by ``how``, such that no number changes."""
        if self.storage:
            return dict(self.storage)
        codec = how.get("codec", "")
        keep = {key: how[key] for key in ("scale", "offset", "invalid", "infinite") if key in how}
        return {"codec": codec, **keep} if codec == "png8" else {"codec": "npy"}

    def resize(self, target: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Target and mask at ``size`` (height, width); see `image.resize_map`."""
        return resize_map(target, valid, size, nearest=not self.is_interpolable)

    def resize_prediction(self, prediction: Tensor, size: tuple[int, int]) -> Tensor:
        """A predicted map ``c h w`` at ``size``: bilinear, or nearest where values cannot be interpolated."""
        if self.is_interpolable:
            return interpolate(prediction[None].float(), size, mode="bilinear", align_corners=False)[0]
        return interpolate(prediction[None].float(), size, mode="nearest-exact")[0]

    def normalize(self, target: Tensor, valid: Tensor) -> Tensor:
        """A target after interpolation, brought back to values that are possible."""
        return target

    def discretize(self, prediction: Tensor) -> Tensor:
        """A predicted map as a target to be stored: values that lie between two possible ones become one of them."""
        return prediction

    def zoom(self, target: Tensor, scale: float) -> Tensor:
        """The target of a scene that is ``scale`` times as close: of the image enlarged by ``scale``."""
        return target

    def flip(self, target: Tensor) -> Tensor:
        """The target ``*b c h w`` of the mirrored image."""
        return target.flip(-1)

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """A preview image ``3 h w`` in [0, 1] of a target ``c h w``, grey where it is not valid.

        ``image`` is that of the sample, ``3 h w``.
        """
        if target.shape[0] == 3:
            return color_image(target, valid)
        one = target[:1] if self.unit.startswith("0") else scaled_depth(target[:1], valid).clamp(0, 1)
        return color_mask(one, valid)

    def _from_palette(self, raw: Tensor, how: Descriptor, colors: Tensor) -> tuple[Tensor, int]:
        raise levels.palette_error(self.name, raw, colors)
