"""Sampling plans: the time steps from a partially noised latent to a clean one."""

from __future__ import annotations

from dataclasses import dataclass

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
        return official_plan(config.strength, config.steps, schedule)
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


def official_plan(strength: float, steps: int, schedule: Schedule) -> SamplingPlan:
    """The time steps of the released code of Diff-2-in-1.

    T = strength * 1000. The latent is noised to T, but the time steps are ``1, 1 + c, 1 + 2c, ...`` with
    ``c = T // steps``: for T = 600 and 50 steps the network is called at 589 first, which stands for less noise than
    the latent has. Each step leads to the next of the list, the last to the level of time step 0, so a little noise
    stays.

    Raises:
        ValueError: more steps than T has time steps, or a rectified flow, which the released code does not have.
    """
    if schedule.prediction_type == "flow":
        raise ValueError(
            "compat 'official' needs a variance-preserving schedule, and this network is a rectified flow; leave "
            "compat out"
        )
    total = min(round(strength * schedule.steps), schedule.steps)
    stride = total // steps
    if stride < 1:
        raise ValueError(
            f"compat 'official' takes {steps} steps below time step {total}; raise strength or lower steps"
        )
    timesteps = tuple(1 + t for t in reversed(range(0, total, stride)) if 1 + t < schedule.steps)
    level = float(schedule.alpha_bar[0])
    return SamplingPlan(min(total, schedule.steps - 1), timesteps, (level**0.5, (1 - level) ** 0.5))
