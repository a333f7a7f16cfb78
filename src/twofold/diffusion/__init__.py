"""Noise schedules, samplers and guidance."""

from .guidance import guided as guided
from .random import Rngs as Rngs, randn_tensor as randn_tensor
from .sampler import (
    ddim as ddim,
    dpmpp_2m as dpmpp_2m,
    dpmpp_2m_timesteps as dpmpp_2m_timesteps,
    euler as euler,
    lcm as lcm,
    lcm_timesteps as lcm_timesteps,
)
from .sampling import Denoise as Denoise, Sampler as Sampler, sample as sample
from .schedule import (
    MAX_STEPS as MAX_STEPS,
    BetaFamily as BetaFamily,
    Parametrization as Parametrization,
    Scales as Scales,
    Schedule as Schedule,
    Spacing as Spacing,
    cast_like as cast_like,
    from_x0 as from_x0,
    per_image as per_image,
    to_x0 as to_x0,
    x0_to_prediction as x0_to_prediction,
)
