"""Sampling plans: the time steps from a partially noised latent to a clean one."""

from __future__ import annotations

from dataclasses import dataclass

from ..compat.diff2in1 import official_steps
from ..diffusion import Schedule, dpmpp_2m_timesteps, lcm_timesteps
from .config import GenerationConfig


@dataclass(frozen=True)
class SamplingPlan:
    """Which time step a latent is noised to, and which time steps denoise it.

    Attributes:
        start: the time step that the clean latent is noised to.
        timesteps: passed to the network, from noisy to clean; the first is ``start`` unless the sampler or ``compat``
            has no such step.
        end: alpha and sigma after the last step; (1, 0) is clean, None is where `diffusion.sample` ends by default.
    """

    start: int
    timesteps: tuple[int, ...]
    end: tuple[float, float] | None = (1.0, 0.0)


def sampling_plan(config: GenerationConfig, schedule: Schedule) -> SamplingPlan:
    """The plan of a configuration.

    The first time step is exactly the one noised to and the last is 1, nearly clean. They are evenly spaced, for
    ``dpmpp_2m`` in the logarithm of the signal-to-noise ratio. A consistency model's are those it was distilled on,
    from the nearest at or below ``start``.

    Raises:
        ValueError: more steps than there are time steps below ``start``.
    """
    if config.compat == "official":
        return SamplingPlan(*official_steps(config.strength, config.steps, schedule))
    start = schedule.step_at(config.strength)
    if config.sampler == "lcm":
        distilled = [t for t in lcm_timesteps(50, schedule.steps) if t <= start]
        if config.steps > len(distilled):
            raise ValueError(
                f"{config.steps} steps of a consistency model at strength {config.strength:g}, below which it was "
                f"distilled on {len(distilled)}; pass at most that"
            )
        count = config.steps
        return SamplingPlan(start, tuple(distilled[i * len(distilled) // count] for i in range(count)))
    if config.sampler == "dpmpp_2m":
        return SamplingPlan(start, tuple(dpmpp_2m_timesteps(schedule, start, config.steps)))
    if config.steps == 1 or start == 1:
        return SamplingPlan(start, (start,))
    count = min(config.steps, start)
    return SamplingPlan(start, tuple(start - round(i * (start - 1) / (count - 1)) for i in range(count)))
