"""Masks (0 or 1) and shares (0 to 1): mattes, trimaps, boundaries."""

from __future__ import annotations

from torch import Tensor

from ..geometry import Camera
from ..image.raster_format import RasterFormat
from . import levels, mask_levels
from .levels import CODEC_TOP, DEFAULT_THRESHOLD, Levels
from .spec import Descriptor, TargetSpec


class Share(TargetSpec):
    """One number per pixel from 0 to 1."""

    is_share = True

    def _select(self, raw: Tensor, how: Descriptor, stored: RasterFormat) -> tuple[Tensor, int]:
        """See `TargetSpec._select`; grey stored in several equal channels becomes one."""
        raw, bits = super()._select(raw, how, stored)
        if stored.palette is None:
            levels.refuse_transparent(self.name, raw, stored)
            raw = levels.grey(self.name, raw, stored)
        return raw, bits

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.decode`."""
        return mask_levels.decode_share(self.name, stored, how)

    def check(self, target: Tensor, valid: Tensor) -> None:
        """See `TargetSpec.check`."""
        super().check(target, valid)
        mask_levels.check_share(self.name, target, valid)

    def _from_palette(self, raw: Tensor, how: Descriptor, colors: Tensor) -> tuple[Tensor, int]:
        index, used = levels.palette_colors(raw, colors)
        is_grey = bool((used[:, 0] == used[:, 1]).all()) and bool((used[:, 1] == used[:, 2]).all())
        if is_grey and levels.is_opaque(used):
            return colors[index, 0][None].float(), 8
        return super()._from_palette(raw, how, colors)


class Mask(Share):
    """0 or 1; 1 is the foreground."""

    def decode(self, stored: Levels, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
        """See `TargetSpec.decode`: compared with a threshold."""
        return mask_levels.decode_mask(stored, how)

    def encode(self, target: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
        """See `TargetSpec.encode`."""
        top = float(CODEC_TOP.get(how["codec"], 255))
        return mask_levels.encode_mask(target, valid, top, levels.ignored(valid, how))

    def discretize(self, prediction: Tensor) -> Tensor:
        """Foreground where its probability is above 1/2."""
        return (prediction > 0.5).float()

    def check(self, target: Tensor, valid: Tensor) -> None:
        """See `TargetSpec.check`; `encode` checks the range."""
        TargetSpec.check(self, target, valid)

    def _from_palette(self, raw: Tensor, how: Descriptor, colors: Tensor) -> tuple[Tensor, int]:
        if float(how.get("threshold", DEFAULT_THRESHOLD)) != DEFAULT_THRESHOLD:
            return raw, 8  # a threshold in the descriptor refers to indices
        try:
            return super()._from_palette(raw, how, colors)
        except ValueError as error:
            raise ValueError(
                f'{error}; a "threshold" of 0 in its descriptor takes every index above 0'
            ) from None
