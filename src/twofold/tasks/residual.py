"""The light of an image beside albedo times shading: highlights, reflections, lamps."""

from __future__ import annotations

from .image_tasks import image_task

residual = image_task(
    name="residual", prompt="residual light", unit="light, linear in [0, 1]", space="linear"
)
