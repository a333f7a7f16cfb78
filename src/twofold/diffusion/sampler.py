"""Steps from noisy to clean, each one formula, and the walk that strings them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .schedule import Schedule, cast_like

Scales = tuple[Tensor, Tensor]
Solver = Literal["ddim", "dpm"]

# log(alpha / sigma) below which a latent is as good as noise: signal a 55th of it.
ALL_NOISE = -4.0


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


def dpm(
    x: Tensor, x0: Tensor, here: Scales, there: Scales, before: tuple[Tensor, Scales] | None = None
) -> Tensor:
    """One deterministic step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    It is DDIM's step towards where ``x0`` will be half of the way: the straight line through what was seen ``before``
    and what is seen now, in the logarithm of alpha / sigma. So nothing but ``x0`` is needed, of any parametrization.

    Args:
        x: ``b c h w`` at ``here``.
        x0: ``b c h w``, the clean latent the network sees in it.
        here: alpha and sigma of ``x``, each ``b 1 1 1``.
        there: alpha and sigma to go to.
        before: the clean latent seen at the step before, and its scales. Without it the step is `ddim`'s, as it is
            wherever one of the three levels is pure noise or clean: infinitely far away.
    """
    if before is None:
        return ddim(x, x0, here, there)
    seen, since = before
    now = _log_ratio(here)
    share = (_log_ratio(there) - now) / (now - _log_ratio(since))
    share = cast_like(torch.where(share.isfinite(), share, torch.zeros_like(share)), x0)
    return ddim(x, x0 + share / 2 * (x0 - seen), here, there)


def _log_ratio(scales: Scales) -> Tensor:
    """``log(alpha / sigma)`` in float64 on the CPU: minus infinity for pure noise, infinity for clean."""
    alpha, sigma = (s.cpu().double() for s in scales)
    return alpha.log() - sigma.log()


def dpm_timesteps(schedule: Schedule, start: int, count: int) -> list[int]:
    """``count`` time steps from ``start`` to 1, evenly spaced in ``log(alpha / sigma)`` (Lu et al. 2022, sec. 6).

    There are fewer where there are no more. Pure noise, infinitely far away, stands for `ALL_NOISE`.
    """
    count = min(count, start)
    if count <= 1:
        return [start] * count
    alpha, sigma = schedule.scales(torch.arange(1, start + 1))
    levels = (alpha.log() - sigma.log()).clamp(ALL_NOISE, -5 * ALL_NOISE)  # of 1, 2, ... start
    wanted = torch.linspace(float(levels[-1]), float(levels[0]), count, dtype=torch.float64)
    times = [start]
    for i in range(1, count):
        nearest = int((levels - wanted[i]).abs().argmin()) + 1
        times.append(max(min(nearest, times[-1] - 1), count - i))  # each its own, and room for the rest
    return times


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
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    schedule: Schedule,
    times: Sequence[float],
    solver: Solver = "ddim",
) -> Tensor:
    """Walk ``x`` (``b c h w``, at ``times[0]``) through ``times`` to the end.

    Args:
        denoise: ``(x, t) -> x0`` with ``t`` of shape ``b``.
        x: the start.
        schedule: gives the scales at each time.
        times: time steps from noisy to clean.
        solver: ``ddim``, which ends where the schedule says; or ``dpm``, which ends clean, with a step of first order.

    Raises:
        ValueError: there is no such solver.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"unknown solver {solver!r}; one of {', '.join(get_args(Solver))}")
    before: tuple[Tensor, Scales] | None = None
    for i, now in enumerate(times):
        t = torch.full((len(x),), now, device=x.device)
        here, last = schedule.scales_like(t, x), i + 1 == len(times)
        if not last:
            there = schedule.scales_like(torch.full_like(t, times[i + 1]), x)
        elif solver == "dpm":
            there = x.new_ones(1, 1, 1, 1), x.new_zeros(1, 1, 1, 1)
        else:
            alpha, sigma = schedule.end()
            there = cast_like(alpha, x), cast_like(sigma, x)
        x0 = denoise(x, t)
        if solver == "dpm":
            x, before = dpm(x, x0, here, there, None if last else before), (x0, here)
        else:
            x = ddim(x, x0, here, there)
    return x
