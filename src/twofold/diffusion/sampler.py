"""One step of each sampler, from a noisy latent to a less noisy one, and the time steps that some samplers need."""

from __future__ import annotations

import torch
from torch import Tensor

from .schedule import Scales, Schedule, cast_like

# log(alpha / sigma) that stands for pure noise: the signal is a 55th of it.
ALL_NOISE = -4.0


def ddim(x: Tensor, x0: Tensor, here: Scales, there: Scales) -> Tensor:
    """One deterministic step (Song et al. 2021, eq. 12 with eta = 0).

    Written from ``x`` and ``x0`` alone, it holds for every parametrization, is Euler's step for rectified flow, and
    has no 0/0 at beta = 1: where ``alpha`` is 0 the noise is ``x`` itself.

    Args:
        x: ``b c h w`` at ``here``.
        x0: ``b c h w``, the clean latent predicted from it.
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


def dpmpp_2m(
    x: Tensor, x0: Tensor, here: Scales, there: Scales, previous: tuple[Tensor, Scales] | None = None
) -> Tensor:
    """One deterministic step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    It is DDIM's step with ``x0`` extrapolated to the middle of the step, linearly in log(alpha / sigma) through the
    ``previous`` prediction and this one. Only ``x0`` is needed, so it holds for every parametrization.

    Args:
        x: ``b c h w`` at ``here``.
        x0: ``b c h w``, the clean latent predicted from it.
        here: alpha and sigma of ``x``, each ``b 1 1 1``.
        there: alpha and sigma to go to.
        previous: x0 and scales of the previous step. Without it, or where one of the three levels is pure noise or
            clean and its logarithm infinite, the step is that of `ddim`.
    """
    if previous is None:
        return ddim(x, x0, here, there)
    previous_x0, previous_scales = previous
    now = _log_ratio(here)
    ratio = (_log_ratio(there) - now) / (now - _log_ratio(previous_scales))
    ratio = cast_like(torch.where(ratio.isfinite(), ratio, torch.zeros_like(ratio)), x0)
    return ddim(x, x0 + ratio / 2 * (x0 - previous_x0), here, there)


def _log_ratio(scales: Scales) -> Tensor:
    """``log(alpha / sigma)`` in float64 on the CPU: minus infinity for pure noise, infinity for clean."""
    alpha, sigma = (s.cpu().double() for s in scales)
    return alpha.log() - sigma.log()


def dpmpp_2m_timesteps(schedule: Schedule, start: int, count: int) -> list[int]:
    """``count`` time steps from ``start`` to 1, evenly spaced in ``log(alpha / sigma)`` (Lu et al. 2022, sec. 6).

    There are at most ``start``. The logarithm of pure noise is taken as `ALL_NOISE`.
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
        times.append(max(min(nearest, times[-1] - 1), count - i))  # strictly falling, down to 1
    return times


def lcm(x: Tensor, x0: Tensor, t: float, scaling: float = 10.0, data_std: float = 0.5) -> Tensor:
    """A consistency model's clean latent: ``x`` and ``x0`` with the boundary weights of Luo et al. 2023 (sec. 4).

    At time step 0 it is ``x``, at late ones ``x0``. For the next state, noise of the next time step is added to it.
    """
    scaled = t * scaling
    keep = data_std**2 / (scaled**2 + data_std**2)
    return keep * x + scaled / (scaled**2 + data_std**2) ** 0.5 * x0


def lcm_timesteps(count: int, total: int = 1000, original: int = 50) -> list[int]:
    """``count`` of the ``original`` time steps a consistency model was distilled on, from noisy to clean.

    Raises:
        ValueError: ``count`` is not from 1 to ``original``.
    """
    if not 1 <= count <= original:
        raise ValueError(
            f"{count} steps of a consistency model that was distilled on {original}; pass 1 to {original}"
        )
    stride = total // original
    distilled = [i * stride - 1 for i in range(original, 0, -1)]
    return [distilled[i * original // count] for i in range(count)]
