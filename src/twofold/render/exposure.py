"""From radiance to a camera image: exposure, white balance, tone curve, vignette, sensor noise.
Float in, sRGB out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.render.textures import Rng


def srgb(x: NDArray) -> NDArray:
    """The sRGB display curve on [0, 1] (IEC 61966-2-1)."""
    x = np.clip(x, 0, 1)
    return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-8) ** (1 / 2.4) - 0.055)


def simulate_camera(radiance: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
    """Linear radiance h w 3 to sRGB h w 3 in [0, 1], like a small camera would:
    automatic exposure with random deviations.
    """
    x = np.nan_to_num(radiance, posinf=1e4).clip(0, 1e4).astype(np.float64)
    h, w = x.shape[:2]
    grey = x.mean(-1)
    # The log mean resists lamps and windows; the percentile keeps most of the image below white.
    key = np.exp(np.log(grey + 1e-4).mean())
    high = np.percentile(grey, 90) + 1e-6
    stops = rng.normal(0, 0.45) - (rng.uniform(0.5, 1.8) if rng.random() < 0.15 else 0)
    x = x * min(0.19 / key, 0.85 / high * rng.uniform(1.2, 3.5)) * 2.0**stops
    # White balance removes most of the colour cast, with errors.
    cast = x.reshape(-1, 3).mean(0)
    x = x * (cast.mean() / (cast + 1e-6)) ** rng.uniform(0.0, 0.9) * np.exp(rng.normal(0, 0.05, 3))
    yy, xx = np.mgrid[0:h, 0:w]
    radius = ((xx - w / 2) ** 2 + (yy - h / 2) ** 2) / (w**2 + h**2) * 4
    x = x * (1 - rng.uniform(0, 0.3) * radius)[..., None]
    shoulder = rng.uniform(0.15, 0.7)
    x = x * (1 + x * shoulder / 4) / (1 + x * shoulder)
    if rng.random() < 0.3:  # a slightly blurred lens
        soft = rng.uniform(0.02, 0.2)
        for axis in (0, 1):
            padded = np.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
            before, after = (np.take(padded, np.arange(k, k + x.shape[axis]), axis) for k in (0, 2))
            x = (1 - 2 * soft) * x + soft * (before + after)
    y = srgb(x)
    contrast = rng.uniform(0.0, 0.35)
    y = (1 - contrast) * y + contrast * (y * y * (3 - 2 * y))
    luma = y.mean(-1, keepdims=True)
    y = luma + (y - luma) * rng.uniform(0.75, 1.2)
    noise = rng.choice([0.0, 0.004, 0.01, 0.02])
    y = y + noise * rng.standard_normal(y.shape) * (0.5 + np.sqrt(np.clip(1 - luma, 0, 1)))
    return np.clip(y, 0, 1).astype(np.float32)
