"""Salient object detection (Borji et al. 2015); data sets store it as a mask."""

from __future__ import annotations

from .mask import mask_task

saliency = mask_task("saliency", "salient object", "0 to 1, saliency of the pixel", target_key="mask")
