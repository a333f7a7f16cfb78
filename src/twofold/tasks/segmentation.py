"""Class colours; the palette is that of the data set."""

from __future__ import annotations

from .image_tasks import image_task

segmentation = image_task(
    name="segmentation",
    prompt="semantic segmentation",
    unit="the colour of a class, sRGB in [0, 1]",
    space="srgb",
)
