"""Schedules and samplers."""

from .draw import Rngs, draw
from .sampler import Solver, ddim, dpm, dpm_timesteps, euler, lcm, lcm_timesteps, walk
from .schedule import (
    MAX_STEPS,
    BetaFamily,
    Parametrization,
    Schedule,
    Spacing,
    cast_like,
    from_x0,
    per_image,
    to_x0,
    word_for,
)

__all__ = [
    "MAX_STEPS",
    "BetaFamily",
    "Parametrization",
    "Rngs",
    "Schedule",
    "Solver",
    "Spacing",
    "cast_like",
    "ddim",
    "dpm",
    "dpm_timesteps",
    "draw",
    "euler",
    "from_x0",
    "lcm",
    "lcm_timesteps",
    "per_image",
    "to_x0",
    "walk",
    "word_for",
]
