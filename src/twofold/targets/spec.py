"""TargetSpec: meaning of a target's values, and operations on its maps (storage, resizing, mirroring, previews).

A *target* is a map of a sample, by name: ``depth``, ``normals``. Targets of one kind share a subclass of `TargetSpec`;
a new target is one line in `targets.TARGETS`.
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

# How a target is stored: a header's ``targets[name]``, updated with the row's entries; see `data.codecs`.
Descriptor = Mapping[str, Any]


@dataclass(frozen=True)
class TargetSpec:
    """A target whose stored values are decoded with ``scale`` and ``offset``.

    Attributes:
        name: name of the target, as in ``Sample.targets``.
        channels: channels of its map; 0 for an unknown target.
        unit: unit of its values.
        description: meaning of the values.
        is_interpolable: whether interpolated values are valid; False for ids.
        storage: default descriptor of `data.FolderWriter`; empty for none.
    """

    name: str
    channels: int = 0
    unit: str = ""
    description: str = ""
    is_interpolable: bool = True
    storage: Mapping[str, Any] = field(default_factory=dict, hash=False)

    # Whether values are distances, which may be predicted up to scale and shift only.
    is_distance = False
    # Whether values are unit vectors, in a frame of `geometry.FRAMES`.
    is_direction = False
    # Whether values are ids, of classes or of objects.
    is_ids = False
    # Whether values go from 0 (none) to 1 (all); labels normally contain both.
    is_share = False
    # Whether values are heatmaps of points, a channel each.
    is_points = False
    # Whether a map's smallest and largest value are informative.
    has_range = True

    def read_levels(self, raw: Tensor, how: Descriptor, stored: RasterFormat | None) -> Levels:
        """Select the stored values that hold the target.

        Args:
            raw: ``c h w`` from `image.read_map`.
            how: the descriptor; ``channel`` selects one of several channels.
            stored: format of the file; None if only the codec is known.

        Raises:
            ValueError: it is ambiguous which channel or palette entry holds the target.
        """
        stored = levels.format_of(how) if stored is None else stored
        if "channel" in how:
            values, bits = levels.channel(raw, int(how["channel"])), stored.bits
        else:
            values, bits = self._select(raw, how, stored)
        return Levels(values, bits, stored.raster, stored.lossy)

    def _select(self, raw: Tensor, how: Descriptor, stored: RasterFormat) -> tuple[Tensor, int]:
        """The stored map ``c h w`` without alpha and palette, and the bits of its values."""
        if not self.channels:
            return raw, stored.bits
        if stored.palette is not None:
            return self._from_palette(raw, how, torch.from_numpy(stored.palette))
        if stored.alpha:
            raw = levels.without_alpha(self.name, raw, stored)
        return raw, stored.bits

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """Stored levels to the target ``c h w`` float32 in its unit, and its valid mask, bool ``1 h w``.

        Raises:
            ValueError: the descriptor is incomplete, or the values are impossible for the target.
        """
        value = stored.values * float(how.get("scale", 1.0)) + float(how.get("offset", 0.0))
        valid = value.isfinite().all(0, keepdim=True) & ~levels.matches(stored.values, how.get("invalid"))
        return torch.where(valid, value, 0.0), valid

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """A target to stored values; the inverse of `decode`.

        Raises:
            ValueError: a value that the codec cannot store.
        """
        raw = (target - float(how.get("offset", 0.0))) / float(how.get("scale", 1.0))
        if how["codec"] not in CODEC_TOP:
            return torch.where(valid, raw, math.nan)
        return torch.where(valid, raw.round(), levels.ignored(valid, {"ignore": how.get("invalid", [])}))

    def check(self, target: Tensor, valid: Tensor) -> None:
        """ValueError when valid values of a target to be written are impossible in its unit."""
        found = target[valid.expand_as(target)]
        if found.numel() and not bool(found.isfinite().all()):
            raise ValueError(f"{self.name} is NaN or infinite at valid pixels; mark them as invalid")

    def check_array(self, array: np.ndarray, how: Descriptor) -> None:
        """ValueError when the dtype of a stored array does not fit the descriptor ``how``."""

    def problem(self, target: Tensor, valid: Tensor, how: Descriptor, raw: np.ndarray) -> str:
        """A message if the decoded target of the stored array ``raw`` is impossible, else ""."""
        return ""

    def value_warning(self, target: Tensor, valid: Tensor) -> str:
        """A message if a decoded target with a valid pixel is unlikely, else ""."""
        values = target[valid.expand_as(target)]
        low, high = float(values.min()), float(values.max())
        if self.unit == "0 to 1" and not (low >= 0 and high <= 1):
            return f"{self.name} goes from {low:g} to {high:g}, not 0 to 1; set its 'scale'"
        return ""

    def lossless_storage(self, how: Descriptor) -> dict[str, Any]:
        """A descriptor for writing, without loss, a target that was read by ``how``."""
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
        """Make an interpolated target valid again, such as vectors of unit length."""
        return target

    def discretize(self, prediction: Tensor) -> Tensor:
        """A predicted map as a target to be stored: continuous values of discrete targets are rounded."""
        return prediction

    def zoom(self, target: Tensor, scale: float) -> Tensor:
        """The target of the image enlarged by ``scale``, as if the scene were ``scale`` times as close."""
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
