"""The colour of the surfaces themselves, without light and shadow."""

from __future__ import annotations

from .image_tasks import image_task

albedo = image_task(name="albedo", prompt="albedo", unit="reflectance, sRGB in [0, 1]", space="srgb")
