"""Steps from noisy to clean, each one formula, and the walk that strings them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .schedule import Schedule

Scales = tuple[Tensor, Tensor]


def ddim(x: Tensor, x0: Tensor, here: Scales, there: Scales) -> Tensor:
    """One deterministic step (Song et al. 2021, eq. 12 with eta = 0).

    Written from ``x`` and ``x0`` alone, it holds for every parametrization, is Euler's step for rectified flow, and
    has no 0/0 at beta = 1: where ``alpha`` is 0 the noise is ``x`` itself.

    Args:
        x: ``b c h w`` at ``here``.
        x0: ``b c h w``, the clean latent the network sees in it.
        here: alpha and sigma of ``x``, each ``b 1 1 1``.
        there: alpha and sigma to go to.
    """
    alpha, sigma = here
    noise = torch.where(sigma > 0, (x - alpha * x0) / sigma.clamp(min=1e-12), torch.zeros_like(x))
    return there[0] * x0 + there[1] * noise


def walk(
    denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, schedule: Schedule, times: Sequence[float]
) -> Tensor:
    """Walk ``x`` (``b c h w``, at ``times[0]``) through ``times`` to the schedule's end with DDIM steps.

    Args:
        denoise: ``(x, t) -> x0`` with ``t`` of shape ``b``.
        x: the start.
        schedule: gives the scales at each time.
        times: time steps from noisy to clean.
    """
    for i, now in enumerate(times):
        t = torch.full((len(x),), now, device=x.device)
        if i + 1 < len(times):
            there = schedule.scales_like(torch.full_like(t, times[i + 1]), x)
        else:
            alpha, sigma = schedule.end()
            there = alpha.to(x), sigma.to(x)
        x = ddim(x, denoise(x, t), schedule.scales_like(t, x), there)
    return x
