"""The walk from a partly noised latent back to a clean one: which time steps, and what is done at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion import (
    Rngs,
    Schedule,
    ddim,
    dpmpp_2m,
    dpmpp_2m_timesteps,
    euler,
    lcm,
    lcm_timesteps,
    randn_tensor,
)
from ..protocols import Answer
from .config import Settings

Scale = tuple[float, float]
# (state ``b c h w``, time step ``b``, whether it is the last) -> what the network sees in it.
Denoise = Callable[[Tensor, Tensor, bool], Answer]


@dataclass(frozen=True)
class Path:
    """A walk: noised to the time step ``start``, looked at ``times``, left at the scales ``end``.

    Attributes:
        start: the time step that the clean latent is noised to.
        times: time steps that the network is told, from noisy to clean; the first is ``start`` unless a sampler or
            ``compat`` knows no such step.
        end: alpha and sigma of what is decoded; (1, 0) is clean.
    """

    start: int
    times: tuple[int, ...]
    end: Scale = (1.0, 0.0)


def path(settings: Settings, schedule: Schedule) -> Path:
    """The walk that the settings ask for.

    Its first time step is exactly the one noised to and its last is 1, nearly clean, evenly spaced between, for
    ``dpmpp_2m`` in the logarithm of signal to noise; a consistency model's are those it was distilled on,
    from the nearest at or below.

    Raises:
        ValueError: more steps than there are time steps on the way.
    """
    if settings.compat == "official":
        return official_path(settings.strength, settings.steps, schedule)
    start = schedule.step_at(settings.strength)
    if settings.sampler == "lcm":
        taught = [t for t in lcm_timesteps(50, schedule.steps) if t <= start]
        if settings.steps > len(taught):
            raise ValueError(
                f"{settings.steps} steps of a consistency model at strength {settings.strength:g}, which has "
                f"{len(taught)} taught ones on its way; take fewer"
            )
        count = settings.steps
        return Path(start, tuple(taught[i * len(taught) // count] for i in range(count)))
    if settings.sampler == "dpmpp_2m":
        return Path(start, tuple(dpmpp_2m_timesteps(schedule, start, settings.steps)))
    if settings.steps == 1 or start == 1:
        return Path(start, (start,))
    count = min(settings.steps, start)
    return Path(start, tuple(start - round(i * (start - 1) / (count - 1)) for i in range(count)))


def official_path(strength: float, steps: int, schedule: Schedule) -> Path:
    """The walk of the released code of Diff-2-in-1.

    T = strength * 1000. The latent is noised to T, but the walk's time steps are ``1, 1 + c, 1 + 2c, ...`` with
    ``c = T // steps``: for T = 600 and 50 steps the first look is told 589, where there is less noise than there is.
    Each step leads to the list's next, the last to the level of time step 0, so a little noise stays.

    Raises:
        ValueError: more steps than T has time steps, or a rectified flow, which the original does not know.
    """
    if schedule.predicts == "flow":
        raise ValueError(
            "compat 'official' knows variance-preserving schedules, and this network is a rectified flow"
        )
    total = min(round(strength * schedule.steps), schedule.steps)
    stride = total // steps
    if stride < 1:
        raise ValueError(
            f"compat 'official' takes {steps} steps below time step {total}; raise strength or lower steps"
        )
    times = tuple(1 + t for t in reversed(range(0, total, stride)) if 1 + t < schedule.steps)
    level = float(schedule.alpha_bar[0])
    return Path(min(total, schedule.steps - 1), times, (level**0.5, (1 - level) ** 0.5))


def run(
    way: Path, sampler: str, denoise: Denoise, x: Tensor, schedule: Schedule, rngs: Rngs
) -> tuple[Tensor, Answer]:
    """Walk ``x`` (``b c h w``, noised to ``way.start``) to its end.

    Args:
        way: the walk.
        sampler: ``ddim``, ``euler``, ``dpmpp_2m`` or ``lcm``.
        denoise: what the network sees in a state; its answer's features are kept of the last look only.
        x: the start.
        schedule: gives the scales at each time step.
        rngs: of what ``lcm`` draws on the way.

    Returns:
        The last state, and the answer of the last look.
    """
    answer = Answer(x)
    before: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
    for i, now in enumerate(way.times):
        last = i + 1 == len(way.times)
        t = torch.full((len(x),), now, device=x.device)
        answer = denoise(x, t, last)
        here = schedule.scales_like(t, x)
        if last:
            there = x.new_full((1, 1, 1, 1), way.end[0]), x.new_full((1, 1, 1, 1), way.end[1])
        else:
            there = schedule.scales_like(torch.full_like(t, way.times[i + 1]), x)
        if sampler == "lcm":
            clean = lcm(x, answer.x0, now)
            x = clean if last else there[0] * clean + there[1] * randn_tensor(x.shape, rngs, x)
        elif sampler == "dpmpp_2m":
            x, before = dpmpp_2m(x, answer.x0, here, there, None if last else before), (answer.x0, here)
        else:
            x = (euler if sampler == "euler" else ddim)(x, answer.x0, here, there)
    return x, answer
