"""What albedo times shading leaves of a picture: highlights, mirrors, lamps."""

from __future__ import annotations

from .pictures import picture_task

residual = picture_task(
    name="residual", prompt="residual light", unit="light, linear in [0, 1]", space="linear"
)
