"""The light that falls on the surfaces: picture = albedo * shading + residual, in linear light."""

from __future__ import annotations

from .pictures import picture_task

shading = picture_task(name="shading", prompt="shading", unit="light, linear in [0, 1]", space="linear")
