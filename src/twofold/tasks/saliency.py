"""What draws the eye (salient object detection: Borji et al. 2015), bright on dark; data holds it as a mask."""

from __future__ import annotations

from .mask import mask_task

saliency = mask_task("saliency", "salient object", "0 to 1, how much the pixel draws the eye", source="mask")
