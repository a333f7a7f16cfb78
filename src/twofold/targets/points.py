"""Points in the image, as heatmaps: joints of one person."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import peaks
from .people import draw, flip_heatmaps
from .spec import TargetSpec


class Points(TargetSpec):
    """A heatmap per joint, 1 at its position; -1 everywhere for a joint that is not labelled."""

    is_points = True
    has_range = False

    def flip(self, target: Tensor) -> Tensor:
        """See `people.flip_heatmaps`."""
        return flip_heatmaps(target)

    def color(self, target: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """The person drawn over the faded image."""
        found = peaks(target)
        drawn = draw(found[None, :, :2], found[None, :, 2] > 0, (image.shape[-2], image.shape[-1]))
        return torch.where(drawn.amax(0, keepdim=True) > 0, drawn, image * 0.4 + 0.3)
