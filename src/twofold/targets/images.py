"""Targets that are images: intrinsic images, class colours, skeletons of people."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..visualization import color_image
from . import levels
from .people import JOINTS, flip_heatmaps
from .spec import Descriptor, TargetSpec


@dataclass(frozen=True)
class ImageTarget(TargetSpec):
    """Three numbers per pixel from 0 to 1.

    Attributes:
        is_linear: whether values are linear light, which a preview image converts to sRGB.
    """

    channels: int = 3
    unit: str = "0 to 1"
    is_linear: bool = False

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """See `visualization.color_image`."""
        return color_image(target, valid, linear=self.is_linear)

    def _from_palette(self, raw: Tensor, how: Descriptor, colors: Tensor) -> tuple[Tensor, int]:
        index, used = levels.palette_colors(raw, colors)
        if levels.is_opaque(used):
            return colors[index, :3].movedim(-1, 0).float(), 8
        return super()._from_palette(raw, how, colors)


class Skeleton(ImageTarget):
    """Joints and limbs of people in the colours of `people.colours`."""

    has_range = False

    def flip(self, target: Tensor) -> Tensor:
        """Mirror ``*b 3 h w`` and exchange red and blue; heatmaps ``*b 17 h w`` are mirrored like keypoints."""
        return flip_heatmaps(target) if target.shape[-3] == len(JOINTS) else target.flip(-1, -3)
