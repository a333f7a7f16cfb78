"""How rough and how metallic the surfaces are, in the first two channels of a picture."""

from __future__ import annotations

from .pictures import picture_task

material = picture_task(
    name="material", prompt="material", unit="roughness, metalness and 0, each in [0, 1]", space="material"
)
