"""Environment light: a procedural sky, or a measured panorama where one is installed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.render.textures import Rng, fbm

HEIGHT = 128


def procedural(rng: Rng, overcast: float | None = None) -> tuple[NDArray[np.float32], str]:
    """An equirectangular sky HEIGHT 2*HEIGHT 3 (row 0 = zenith) with sun, gradient and clouds, and its
    adjective.
    """
    n = HEIGHT
    row, column = np.mgrid[0:n, 0 : 2 * n]
    elevation = np.pi / 2 - (row + 0.5) / n * np.pi
    azimuth = (column + 0.5) / n * np.pi
    sun_height, sun_at = rng.uniform(0.08, 1.2), rng.uniform(0, 2 * np.pi)
    low = np.clip(1 - sun_height / 0.45, 0, 1)
    zenith = np.array([0.12, 0.28, 0.75]) * rng.uniform(0.5, 1.2) * (1 - 0.4 * low)
    horizon = (1 - low) * np.array([0.75, 0.85, 1.0]) + low * np.array([1.1, 0.7, 0.45])
    t = np.sin(np.clip(elevation, 0, None))[..., None] ** rng.uniform(0.35, 0.7)
    sky = horizon * (1 - t) + zenith * t
    cover = rng.beta(0.8, 1.2) if overcast is None else overcast
    cloud = np.clip((fbm(rng, 2 * n, rng.uniform(1.6, 2.4))[:n] - 1 + cover) * 4 + 0.4, 0, 1)[..., None]
    cloud = cloud * np.clip(t * 4, 0, 1)
    grey = np.array([1.0, 1.0, 1.02]) * rng.uniform(0.5, 1.0)
    sky = sky * (1 - 0.9 * cloud) + grey * (0.75 + 0.35 * fbm(rng, 2 * n, 2)[:n, :, None]) * 0.9 * cloud
    ground = np.array([0.25, 0.22, 0.17]) * rng.uniform(0.5, 1.3)
    sky = np.where((elevation < 0)[..., None], ground, sky)
    cosine = np.sin(elevation) * np.sin(sun_height) + np.cos(elevation) * np.cos(sun_height) * np.cos(
        azimuth - sun_at
    )
    power = rng.uniform(60, 260) * (1 - 0.97 * np.clip(cover * 1.4 - 0.4, 0, 1))
    warm = np.array([1.0, 0.95, 0.85]) * (1 - low) + np.array([1.0, 0.65, 0.35]) * low
    sky = sky + (power * (cosine > 0.9982) + 0.6 * np.exp((cosine - 1) * 60))[..., None] * warm
    word = "cloudy" if cover > 0.6 else "evening" if low > 0.5 else "blue"
    return sky.astype(np.float32), word


def panorama(rng: Rng, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A measured panorama h w 3, turned by a random angle and perhaps mirrored.

    Cameras that overflow store negative values in the sun; such pixels become grey of their own brightness.
    """
    x = np.nan_to_num(np.asarray(image, np.float32))
    broken = (x < 0).any(-1, keepdims=True)
    x = np.clip(x, 0, 2000)
    x = np.where(broken, x.mean(-1, keepdims=True), x)
    x = np.roll(x, int(rng.integers(x.shape[1])), axis=1)
    return x[:, ::-1] if rng.random() < 0.5 else x


def level(sky: NDArray[np.float32]) -> float:
    """Mean radiance of the upper half, weighted by solid angle: what the scene receives."""
    h = len(sky) // 2
    solid = np.sin((np.arange(h) + 0.5) / len(sky) * np.pi)
    return float((sky[:h].mean(-1) * solid[:, None]).mean() / solid.mean())
