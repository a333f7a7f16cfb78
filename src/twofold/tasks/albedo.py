"""The colour of the surfaces themselves, without light and shadow."""

from __future__ import annotations

from .pictures import picture_task

albedo = picture_task(name="albedo", prompt="albedo", unit="reflectance, sRGB in [0, 1]", space="srgb")
