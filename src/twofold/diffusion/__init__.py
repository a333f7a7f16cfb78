"""Noise schedules, samplers and guidance."""

from .guidance import guided
from .random import Rngs, randn_tensor
from .sampler import ddim, dpmpp_2m, dpmpp_2m_timesteps, euler, lcm, lcm_timesteps
from .sampling import Denoise, Sampler, sample
from .schedule import (
    MAX_STEPS,
    BetaFamily,
    Parametrization,
    Scales,
    Schedule,
    Spacing,
    cast_like,
    from_x0,
    per_image,
    to_x0,
    x0_to_prediction,
)

__all__ = [
    "MAX_STEPS",
    "BetaFamily",
    "Denoise",
    "Parametrization",
    "Rngs",
    "Sampler",
    "Scales",
    "Schedule",
    "Spacing",
    "cast_like",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_timesteps",
    "euler",
    "from_x0",
    "guided",
    "lcm",
    "lcm_timesteps",
    "per_image",
    "randn_tensor",
    "sample",
    "to_x0",
    "x0_to_prediction",
]
