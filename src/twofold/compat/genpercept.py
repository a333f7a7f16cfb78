"""GenPercept's released encodings and losses, to reproduce models that were trained with them.

Each docstring states the difference to the function of the same name in `tasks`; `genpercept_task` returns a task with
all of them. `genpercept_loader` implements the preprocessing: invalid depths keep their values, normals are those of
`zeroed_normals`, and labels are encoded before they are resized.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..tasks import Task
from ..tasks.depth import HIGH, LOW
from ..tasks.losses import masked_mean, neighbour_differences

# Added to encoded depth before its losses, which makes it positive.
OFFSET = 2.0
_TINY = 1e-6


def encode_depth(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Like `tasks.depth.encode`, but invalid pixels are encoded by their stored values: pixels of 0 m are nearest.

    The sky gets the largest finite depth of its image, as in the authors' data.

    Args:
        depth: ``b 1 h w`` metres; at invalid pixels the stored values, 0 for none, +inf for the sky.
        valid: ``b 1 h w`` bool.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, -1 for an image without a valid pixel; the mask is ``valid``.
    """
    depth = _with_near_sky(depth)
    encoded = torch.full_like(depth, -1)
    for i in range(len(depth)):
        if valid[i].any():
            known = depth[i][valid[i]].cpu().double()
            near, far = float(_quantile(known, LOW)), float(_quantile(known, HIGH))
            encoded[i] = ((depth[i] - near) / max(far - near, 1e-6) * 2 - 1).clamp(-1, 1)
    return encoded.expand(-1, 3, -1, -1).contiguous(), valid


def encode_minmax(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode masks, mattes or class colours by min-max normalization of each image to [-1, 1].

    All channels have the same scale, so an encoded colour depends on the other colours of its image. A constant image
    becomes -1, so a mask that is all foreground is encoded as background.

    Args:
        target: ``b 1 h w`` or ``b 3 h w``, in any unit.
        valid: ``b 1 h w`` bool; only its shape is used.

    Returns:
        ``b 3 h w`` in [-1, 1]; a mask ``b 1 h w`` that is True everywhere.
    """
    low, high = target.amin((1, 2, 3), keepdim=True), target.amax((1, 2, 3), keepdim=True)
    encoded = (target - low) / (high - low).clamp(min=1e-6) * 2 - 1
    return encoded.expand(-1, 3, -1, -1).contiguous(), torch.ones_like(valid)


def zeroed_normals(normals: Tensor, valid: Tensor, depth_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Set normals to zero at pixels of invalid depth, without making them invalid.

    A zero vector adds a constant 90 degrees to the angular loss for any prediction.

    Args:
        normals: ``*b 3 h w``.
        valid: ``*b 1 h w`` bool, valid pixels of the normals.
        depth_valid: ``*b 1 h w`` bool, valid pixels of the depth of the same image.

    Returns:
        The vectors, which are zero at pixels where normals or depth are invalid, and ``valid``.
    """
    return torch.where(valid & depth_valid, normals, 0.0), valid


def scale_shift_invariant(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Like `tasks.depth.scale_shift_invariant`, but the medians are matched if the scale is not positive.

    `OFFSET` is added to both first. If the least-squares scale is not positive, the prediction is multiplied by the
    ratio of the two medians (the lower one for even counts).
    """
    p, g = pred.mean(1) + OFFSET, target.mean(1) + OFFSET
    known, total = mask[:, 0], pred.new_zeros(())
    for i in range(len(p)):
        x, y, m = p[i], g[i], known[i].to(p)
        a00, a01, a11 = (m * x * x).sum(), (m * x).sum(), m.sum()
        b0, b1 = (m * x * y).sum(), (m * y).sum()
        determinant = a00 * a11 - a01 * a01
        scale, shift = x.new_zeros(()), x.new_zeros(())
        if determinant > 0:
            scale, shift = (a11 * b0 - a01 * b1) / determinant, (a00 * b1 - a01 * b0) / determinant
        if scale > 0 or not known[i].any():
            fitted = scale * x + shift
        else:
            fitted = x * (y[known[i]].median() / (x[known[i]].median() + 1e-8))
        total = total + ((fitted - y).abs() * m).sum()
    return total / known.sum().clamp(min=1)


def median_scale_shift_invariant(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 after each image is shifted to median 0 and scaled to mean deviation 1 (MiDaS). No released model used it.

    Medians (the lower one for even counts) and deviations are those of all pixels, valid or not; the sum of deviations
    is divided by the number of valid pixels.
    """
    count = mask.flatten(1).sum(1).clamp(min=1)[:, None]

    def standardized(encoded: Tensor) -> Tensor:
        flat = encoded.mean(1).flatten(1)
        centred = flat - flat.median(1, keepdim=True).values
        return centred / (centred.abs().sum(1, keepdim=True) / count + _TINY)

    error = (standardized(pred) - standardized(target)).abs().reshape(len(pred), 1, *pred.shape[-2:])
    return masked_mean(error, mask)


def encode_disparity(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Like `tasks.disparity.encode`, but the whole range of 1 / depth, without quantiles, becomes [-1, 1].

    One very near pixel compresses the values of all others. -1 is the largest depth, valid or not, so the farthest
    valid pixel may be above -1. The sky gets the largest finite depth.

    Args:
        depth: ``b 1 h w`` metres; at invalid pixels the stored values, 0 for none, +inf for the sky.
        valid: ``b 1 h w`` bool.

    Returns:
        ``b 3 h w`` in [-1, 1], three equal channels, -1 where invalid; the mask is ``valid``.
    """
    depth = _with_near_sky(depth)
    inverse = 1 / depth
    far = torch.where(depth > 0, inverse, math.inf).flatten(1).amin(1).reshape(-1, 1, 1, 1)
    near = torch.where(valid, inverse, 0).flatten(1).amax(1).reshape(-1, 1, 1, 1)
    scaled = (inverse - far) / (near - far).clamp(min=1e-6) * 2 - 1
    return torch.where(valid, scaled.clamp(-1, 1), -1).expand(-1, 3, -1, -1).contiguous(), valid


def _with_near_sky(depth: Tensor) -> Tensor:
    """Replace +inf in ``b 1 h w`` metres by the largest finite depth of each image, as in GenPercept's data."""
    sky = torch.isposinf(depth)
    return torch.where(sky, torch.where(sky, 0, depth).amax((1, 2, 3), keepdim=True), depth)


def gradient_vertical(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """GenPercept's gradient loss as its depth models were trained: vertical differences only, at one scale.

    The released code calls MiDaS's loss on tensors with an additional dimension, so that it differentiates along the
    wrong dimension. Channels are averaged first, and the sum is divided by the number of valid pixels, not of pairs.
    The intended loss is `gradient`.
    """
    error = (pred - target).mean(1, keepdim=True)
    if error.shape[-2] < 2:
        return (error * 0).sum()
    change, both = neighbour_differences(error, mask, -2)
    return (change * both).sum() / mask.sum().clamp(min=1)


_DEPTH_LOSSES = {
    "ssi": scale_shift_invariant,
    "gradient": gradient_vertical,
    "median_ssi": median_scale_shift_invariant,
}
# The changes to each task.
_CHANGES: dict[str, Callable[[Task], Task]] = {
    "depth": lambda task: replace(task, encode=encode_depth, losses={**task.losses, **_DEPTH_LOSSES}),
    "disparity": lambda task: replace(task, encode=encode_disparity, losses={**task.losses, **_DEPTH_LOSSES}),
    "normals": lambda task: replace(task, weights={"angular": 1.0}),
    **dict.fromkeys(("mask", "matting", "segmentation"), lambda task: replace(task, encode=encode_minmax)),
}


def genpercept_task(task: Task) -> Task:
    """``task`` with the encoding, losses and loss weights of GenPercept's release.

    Depth and disparity have an additional loss without a default weight: ``median_ssi``.

    Raises:
        ValueError: GenPercept does not have the task.
    """
    if task.name not in _CHANGES:
        raise ValueError(f"GenPercept has no task {task.name!r}; it has {', '.join(_CHANGES)}")
    return _CHANGES[task.name](task)


def _quantile(values: Tensor, q: float) -> Tensor:
    """The quantile with linear interpolation; `torch.quantile` is limited to 16 million values."""
    ordered = values.sort().values
    position = q * (len(ordered) - 1)
    low, high = int(position), min(int(position) + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], position - low)
