"""Resizing and denoising steps of the released code of Diff-2-in-1 for generating images from others."""

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

    T = strength * 1000. The latent is noised to T, but the time steps are ``1, 1 + c, 1 + 2c, ...`` with
    ``c = T // steps``: for T = 600 and 50 steps the network is called at 589 first, which stands for less noise than
    the latent has. Each step leads to the next of the list, the last to the level of time step 0, so a little noise
    stays.

    Returns:
        The time step that the latent is noised to, those that denoise it, and alpha and sigma after the last.

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
    return min(total, schedule.steps - 1), timesteps, (level**0.5, (1 - level) ** 0.5)


def resize_to_square(source: Sample, edge: int) -> Sample:
    """Resize a sample to a square as in the released code of Diff-2-in-1, ignoring the aspect ratio.

    Images and maps are interpolated without antialiasing, with invalid pixels as zeros, and vectors are not normalized
    again. A pixel is valid where all pixels of its interpolation are, which takes a pixel off every border.
    """
    targets, valid = {}, {}
    for name, target in source.targets.items():
        known = source.valid[name]
        if target_spec(name).is_interpolable:
            targets[name] = _bilinear(torch.where(known, target, 0.0), edge)
        else:
            targets[name] = interpolate(torch.where(known, target, 0.0)[None], (edge, edge), mode="nearest")[
                0
            ]
        valid[name] = _bilinear(known.float(), edge) >= 1
        targets[name] = torch.where(valid[name], targets[name], 0.0)
    return replace(source, image=_bilinear(source.image, edge), targets=targets, valid=valid, camera=None)


def _bilinear(x: Tensor, edge: int) -> Tensor:
    # In float64: halves of ones add up to exactly 1, so that a mask can be compared with 1.
    return interpolate(x.double()[None], (edge, edge), mode="bilinear", align_corners=False)[0].to(x.dtype)
