"""Schedules and samplers."""

from .sampler import ddim, walk
from .schedule import Schedule, from_x0, per_image, to_x0

__all__ = ["Schedule", "ddim", "from_x0", "per_image", "to_x0", "walk"]
