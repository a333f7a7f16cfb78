"""The sampling loop that prediction, image generation and data generation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .random import Rngs, randn_tensor
from .sampler import ddim, dpmpp_2m, euler, lcm
from .schedule import Scales, Schedule, per_image

Sampler = Literal["ddim", "euler", "dpmpp_2m", "lcm"]
# (latent ``b c h w``, time step ``b``) -> x0 ``b c h w``.
Denoise = Callable[[Tensor, Tensor], Tensor]


def sample(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    steps: Sequence[float],
    sampler: Sampler = "ddim",
    *,
    scales: Sequence[Scales] | None = None,
    rngs: Rngs | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Denoise ``x`` step by step.

    Args:
        denoise: the clean latent predicted from a noisy one; called once a step.
        x: ``b c h w``, noisy at ``steps[0]``.
        schedule: gives alpha and sigma at each time step.
        steps: time steps from noisy to clean.
        sampler: ``ddim``; ``euler``, the same step in other coordinates; ``dpmpp_2m``, whose last step is of first
            order; or ``lcm``.
        scales: alpha and sigma after each step; the default is `Schedule.scales_after`, where the last step of
            ``dpmpp_2m`` ends at the clean latent and that of the others at `Schedule.end`.
        rngs: of the noise that ``lcm`` adds between steps.
        noise: ``b c h w``, used as the noise in ``x`` instead of the noise computed from ``x`` and ``x0`` (DMP);
            ignored by ``lcm``.

    Returns:
        ``b c h w``, the latent after the last step.

    Raises:
        ValueError: an unknown sampler, or ``lcm`` with several steps and no ``rngs``.
    """
    if sampler not in get_args(Sampler):
        raise ValueError(f"unknown sampler {sampler!r}; one of {', '.join(get_args(Sampler))}")
    if sampler == "lcm" and len(steps) > 1 and rngs is None:
        raise ValueError("the sampler lcm adds noise between steps; pass rngs=")
    if scales is None:
        scales = schedule.scales_after(steps, (1.0, 0.0) if sampler == "dpmpp_2m" else None)
    previous: tuple[Tensor, Scales] | None = None
    for i, step in enumerate(steps):
        t = torch.full((len(x),), step, device=x.device)
        here = schedule.scales_like(t, x)
        there = per_image(scales[i][0], x), per_image(scales[i][1], x)
        last = i + 1 == len(steps)
        x0 = denoise(x, t)
        if sampler == "lcm":
            x = lcm(x, x0, step)
            if not last and rngs is not None:
                x = there[0] * x + there[1] * randn_tensor(x.shape, rngs, x)
        elif noise is not None:
            x = there[0] * x0 + there[1] * noise
        elif sampler == "dpmpp_2m":
            x, previous = dpmpp_2m(x, x0, here, there, None if last else previous), (x0, here)
        else:
            x = (euler if sampler == "euler" else ddim)(x, x0, here, there)
    return x
