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


def euler(x: Tensor, x0: Tensor, here: Scales, there: Scales) -> Tensor:
    """One Euler step of the probability-flow equation (Karras et al. 2022, algorithm 1 without churn).

    In ``x / alpha`` and ``sigma / alpha`` that equation's slope is the noise; the result is `ddim`'s wherever alpha
    is not 0. Where it is, as in rectified flow's pure noise, the step is taken in ``sigma`` itself.
    """
    (alpha, sigma), (to_alpha, to_sigma) = here, there
    if bool(((alpha == 0) | (to_alpha == 0)).any()):
        return ddim(x, x0, here, there)
    slope = (x / alpha - x0) / (sigma / alpha).clamp(min=1e-12)
    return to_alpha * (x / alpha + (to_sigma / to_alpha - sigma / alpha) * slope)


def lcm(x: Tensor, x0: Tensor, t: float, scaling: float = 10.0, data_std: float = 0.5) -> Tensor:
    """The clean latent as a consistency model gives it: ``x0`` and ``x`` by boundary weights (Luo et al. 2023, sec. 4).

    At time step 0 it is ``x``, far from it ``x0``. The next state is this, noised anew to the next time step.
    """
    scaled = t * scaling
    keep = data_std**2 / (scaled**2 + data_std**2)
    return keep * x + scaled / (scaled**2 + data_std**2) ** 0.5 * x0


def lcm_timesteps(count: int, total: int = 1000, original: int = 50) -> list[int]:
    """``count`` of the ``original`` time steps a consistency model was distilled on, from noisy to clean.

    Raises:
        ValueError: more are asked for than there are.
    """
    if not 1 <= count <= original:
        raise ValueError(f"{count} steps asked of a consistency model that was distilled on {original}")
    stride = total // original
    taught = [i * stride - 1 for i in range(original, 0, -1)]
    return [taught[i * original // count] for i in range(count)]


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
