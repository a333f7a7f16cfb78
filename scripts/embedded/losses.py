"""Losses of a batch: log depth up to a constant, normals, mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SKY = 0.7  # how far behind the farthest valid pixel the sky is put, in log depth
_LEAST = 200  # valid pixels that an example needs for its depth to count


def depth_losses(log_depth: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Losses of log depth ``b 1 h w``: L1 after each image's median shift, multi-scale gradient, disparity.

    A shift of log depth is a scale of depth: the loss is scale-invariant (Eigen et al. 2014), with an L1 norm, whose
    best shift is the median. Gradients are those of the error at strides 1, 2, 4, 8 (Li & Snavely 2018).

    Args:
        log_depth: predicted.
        target: log metres; +inf is the sky, NaN unknown.

    Returns:
        ``depth``, ``gradient`` and ``disparity``; and ``offset``, the squared mean error before the shift, which
        bounds predictions: the other losses are shift-invariant, and the sky would let them grow beyond bf16.
    """
    known, sky = target.isfinite(), torch.isposinf(target)
    far = target.masked_fill(~known, -9.0).flatten(1).amax(1).reshape(-1, 1, 1, 1)
    wanted = torch.where(known, target, torch.where(sky, far + _SKY, 0.0))
    use = known | sky
    with torch.no_grad():
        shift = torch.stack([_median(w - p, k) for w, p, k in zip(wanted, log_depth, known, strict=True)])
    error = torch.where(use, log_depth + shift.reshape(-1, 1, 1, 1) - wanted, 0.0)
    enough = (known.flatten(1).sum(1) > _LEAST).float()
    l1 = error.abs().flatten(1).sum(1) / use.flatten(1).sum(1).clamp(min=1)
    near, near_wanted = (-(error + wanted).masked_fill(~known, 0.0)).exp(), (-wanted).exp()
    count = known.flatten(1).sum(1).clamp(min=1)
    offset = torch.where(known, log_depth - wanted, 0.0).flatten(1).sum(1) / count
    size = ((near_wanted * known).flatten(1).sum(1) / count).clamp(min=1e-3)
    disparity = ((near - near_wanted).abs() * known).flatten(1).sum(1) / count / size
    return {
        "depth": (l1 * enough).mean(),
        "gradient": (_gradients(error, use) * enough).mean(),
        "disparity": (disparity.clamp(max=5) * enough).mean(),
        "offset": (offset.square() * enough).mean(),
    }


def _median(difference: Tensor, known: Tensor) -> Tensor:
    values = difference[known][::7]
    return values.median() if len(values) else difference.new_zeros(())


def _gradients(error: Tensor, use: Tensor) -> Tensor:
    total = error.new_zeros(len(error))
    for stride in (1, 2, 4, 8):
        e, u = error[..., ::stride, ::stride], use[..., ::stride, ::stride]
        across = (e[..., 1:] - e[..., :-1]).abs() * (u[..., 1:] & u[..., :-1])
        down = (e[..., 1:, :] - e[..., :-1, :]).abs() * (u[..., 1:, :] & u[..., :-1, :])
        total = total + across.flatten(1).mean(1) + down.flatten(1).mean(1)
    return total


def normals_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean length of the difference of unit vectors ``b 3 h w`` where the target is known: 2 sin(angle / 2)."""
    known = squared_norm(target) > 0.25
    length = (squared_norm(predicted - unit(target)) + 1e-6).sqrt()
    return (length * known).sum() / known.sum().clamp(min=1)


def squared_norm(x: Tensor) -> Tensor:
    """Squared length ``b 1 h w`` of vectors ``b 3 h w``; a sum of slices, because a reduction over 3 is slow."""
    first, second, third = x[:, :1], x[:, 1:2], x[:, 2:]
    return first * first + second * second + third * third


def unit(x: Tensor) -> Tensor:
    """Vectors ``b 3 h w`` scaled to length 1; nearly zero vectors stay short."""
    return x * squared_norm(x).clamp(min=1e-8).rsqrt()


def mask_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of ``b 1 h w`` where the target is 0 or 1 (255 is unknown)."""
    known = target < 2
    each = F.binary_cross_entropy_with_logits(logit, target.clamp(max=1), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)
