"""Linear light to sRGB in [0, 1]: the one tone mapping of the library."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def hypersim_tone(light: Tensor, valid: Tensor | None = None) -> Tensor:
    """Linear light (float 3 h w, any unit) to an image in [0, 1], the exposure set by the pixels `valid` (bool 1 h w).

    The 90th percentile of their brightness is brought to 0.8 after the gamma of 1/2.2, as the makers of Hypersim do
    (Roberts et al. 2021, `scene_generate_images_tonemap.py`); what is brighter than 1 then is clipped. What is not
    finite counts as 0, negative light as 0.
    """
    light = light.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    weights = light.new_tensor([0.3, 0.59, 0.11])[:, None, None]
    brightness = (light * weights).sum(0, keepdim=True)
    brightness = (brightness if valid is None else brightness[valid]).numpy()
    exposure = 1.0
    if brightness.size:
        bright = float(np.percentile(brightness, 90))
        # Darker than this there is nothing to expose for.
        exposure = 0.8**2.2 / bright if bright >= 1e-4 else 0.0
    return (light.clamp(min=0) * exposure).pow(1 / 2.2).clamp(max=1)
