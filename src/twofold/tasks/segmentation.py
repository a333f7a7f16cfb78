"""What each pixel belongs to, as the colour of its class; the palette is the data's."""

from __future__ import annotations

from .pictures import picture_task

segmentation = picture_task(
    name="segmentation",
    prompt="semantic segmentation",
    unit="the colour of a class, sRGB in [0, 1]",
    space="srgb",
)
