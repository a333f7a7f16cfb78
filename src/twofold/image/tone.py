"""Tone mapping of linear light to sRGB in [0, 1]."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def hypersim_tone(light: Tensor, valid: Tensor | None = None) -> Tensor:
    """Tone-map linear light (float 3 h w, any unit) to [0, 1]; `valid` pixels (bool 1 h w) set the exposure.

    The 90th percentile of their brightness becomes 0.8 after a gamma of 1/2.2, as for Hypersim (Roberts et al. 2021,
    `scene_generate_images_tonemap.py`); larger values are clipped to 1. Negative and non-finite values count as 0.
    """
    light = light.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    weights = light.new_tensor([0.3, 0.59, 0.11])[:, None, None]
    brightness = (light * weights).sum(0, keepdim=True)
    brightness = (brightness if valid is None else brightness[valid]).numpy()
    exposure = 1.0
    if brightness.size:
        bright = float(np.percentile(brightness, 90))
        # An image that is darker becomes black.
        exposure = 0.8**2.2 / bright if bright >= 1e-4 else 0.0
    return (light.clamp(min=0) * exposure).pow(1 / 2.2).clamp(max=1)
