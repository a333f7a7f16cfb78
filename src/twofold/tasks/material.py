"""Roughness and metalness of surfaces, the first two channels of an image."""

from __future__ import annotations

from .image_tasks import image_task

material = image_task(
    name="material", prompt="material", unit="roughness, metalness and 0, each in [0, 1]", space="material"
)
