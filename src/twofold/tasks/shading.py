"""Shading: image = albedo * shading + residual, in linear light."""

from __future__ import annotations

from .image_tasks import image_task

shading = image_task(name="shading", prompt="shading", unit="light, linear in [0, 1]", space="linear")
