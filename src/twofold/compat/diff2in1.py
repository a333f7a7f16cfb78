"""Resizing and time steps of the released code of Diff-2-in-1, which generates images from images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..diffusion import Schedule
from ..sample import Sample
from ..targets import target_spec


def official_steps(
    strength: float, steps: int, schedule: Schedule
) -> tuple[int, tuple[int, ...], tuple[float, float]]:
    """The time steps of the released code of Diff-2-in-1.

    T = strength * 1000. Noise of time step T is added to the latent, but the denoising time steps are
    ``1, 1 + c, 1 + 2c, ...`` with ``c = T // steps``: for T = 600 and 50 steps the network is first called with time
    step 589, which has less noise than the latent. The last step ends at the noise level of time step 0, so a little
    noise remains.

    Args:
        strength: fraction of the noise schedule, in (0, 1].
        steps: number of denoising steps.
        schedule: the noise schedule.

    Returns:
        The time step whose noise is added, the denoising time steps, and alpha and sigma after the last step.

    Raises:
        ValueError: there are more steps than T, or the schedule is a rectified flow.
    """
    if schedule.prediction_type == "flow":
        raise ValueError(
            "compat 'official' needs a variance-preserving schedule, and this is a rectified flow; do not pass compat"
        )
    total = min(round(strength * schedule.steps), schedule.steps)
    stride = total // steps
    if stride < 1:
        raise ValueError(
            f"compat 'official' cannot have {steps} steps below time step {total}; raise strength or lower steps"
        )
    timesteps = tuple(1 + t for t in reversed(range(0, total, stride)) if 1 + t < schedule.steps)
    level = float(schedule.alpha_bar[0])
    return min(total, schedule.steps - 1), timesteps, (level**0.5, (1 - level) ** 0.5)


def resize_to_square(source: Sample, edge: int) -> Sample:
    """Resize a sample to a square of ``edge`` pixels as in the released code of Diff-2-in-1.

    Images and maps are interpolated without antialiasing, with invalid pixels as zeros, and vectors are not normalized
    again. A pixel is valid if all pixels that it is interpolated from are valid.
    """
    targets, valid = {}, {}
    for name, target in source.targets.items():
        known = source.valid[name]
        if target_spec(name).is_interpolable:
            targets[name] = _bilinear(torch.where(known, target, 0.0), edge)
        else:
            known_target = torch.where(known, target, 0.0)[None]
            targets[name] = interpolate(known_target, (edge, edge), mode="nearest")[0]
        valid[name] = _bilinear(known.float(), edge) >= 1
        targets[name] = torch.where(valid[name], targets[name], 0.0)
    return replace(source, image=_bilinear(source.image, edge), targets=targets, valid=valid, camera=None)


def _bilinear(x: Tensor, edge: int) -> Tensor:
    # In float64 the weights of ones add up to exactly 1, so that a mask can be compared with 1.
    return interpolate(x.double()[None], (edge, edge), mode="bilinear", align_corners=False)[0].to(x.dtype)
