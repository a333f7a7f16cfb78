"""Noise schedules as settings, and multi-resolution noise."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from ..diffusion import MAX_STEPS, BetaFamily, Parametrization, Schedule

Strategy = Literal["original", "every_layer", "power_of_two", "random_step"]


@checked(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Noise:
    """Settings of a noise schedule with ``steps`` betas from ``start`` to ``end``.

    Attributes:
        start: first beta (Stable Diffusion: 0.00085).
        end: last beta (Stable Diffusion: 0.012). GenPercept has ``start = end = 1``: alpha is 0 at every time step.
        family: ``scaled_linear`` is linear in the square root, ``power`` in the ``exponent``-th root.
        exponent: of ``power``.
        zero_snr: rescaled so that the last step is pure noise (Lin et al. 2024).
        prediction_type: of the network.
        set_alpha_to_one: whether sampling ends at the clean latent, or at the noise level of the first time step.
        steps: training time steps.
    """

    start: Annotated[float, Field(ge=0, le=1)] = 0.00085
    end: Annotated[float, Field(ge=0, le=1)] = 0.012
    family: BetaFamily = "scaled_linear"
    exponent: Annotated[float, Field(gt=0, le=100)] = 2.0
    zero_snr: bool = False
    prediction_type: Parametrization = "v"
    set_alpha_to_one: bool = False
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1000

    @property
    def schedule(self) -> Schedule:
        """The `Schedule` with these settings."""
        return _schedule(self)


@lru_cache(maxsize=64)
def _schedule(noise: Noise) -> Schedule:
    if noise.prediction_type == "flow":
        return Schedule.flow(noise.steps)
    return Schedule.from_betas(
        noise.start,
        noise.end,
        noise.family,
        noise.steps,
        zero_snr=noise.zero_snr,
        prediction_type=noise.prediction_type,
        set_alpha_to_one=noise.set_alpha_to_one,
        exponent=noise.exponent,
    )


def multi_resolution(
    noise: Tensor,
    rng: torch.Generator,
    strength: float | Tensor = 0.9,
    strategy: Strategy = "original",
    levels: int = 10,
) -> Tensor:
    """Sum of Gaussian noise at several resolutions, rescaled to unit variance (Kasiopy 2023; Marigold's training).

    Args:
        noise: ``b c h w`` standard normal, the finest level.
        rng: generator of the coarser levels.
        strength: k, where level i has weight k**i; one value, or ``b`` annealed ones (Marigold: ``0.9 * t / T``).
        strategy: how the size of level i follows from that of level i - 1: ``original`` divides it by r**i with r drawn
            from [2, 4] at each level, ``power_of_two`` by 2**i, ``random_step`` by an r drawn at each level,
            ``every_layer`` by 2.
        levels: maximal number of levels.

    Returns:
        ``b c h w``, divided by the standard deviation of the whole tensor. The original codes call this with a
        micro-batch, whose examples share r and the deviation, so that their own deviations differ (0.92 to 1.14,
        depending on strength). Training here calls it with one example at a time, which has unit deviation.
    """
    b, c, h, w = noise.shape
    weight = torch.as_tensor(strength, dtype=noise.dtype, device=noise.device).reshape(-1, 1, 1, 1)
    if strategy == "every_layer":
        levels = min(h, w).bit_length() - 1
    out, (rows, columns) = noise, (h, w)
    for i in range(levels):
        r = 2.0
        if strategy in ("original", "random_step"):
            r += 2 * float(torch.rand((1,), generator=rng))
        power = 1 if strategy in ("random_step", "every_layer") else i
        rows, columns = max(1, int(rows / r**power)), max(1, int(columns / r**power))
        coarse = torch.randn((b, c, rows, columns), generator=rng).to(noise)
        out = out + F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False) * weight**i
        if rows == 1 or columns == 1:
            break
    return out / out.std()
