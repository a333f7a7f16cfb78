"""Losses of directions with uncertainty (Bae et al. 2021; von Mises-Fisher).

A prediction is a direction mu and a concentration kappa: larger is more certain. The angular von Mises-Fisher
distribution decreases with the angle, ``p(n) = (kappa^2 + 1) exp(-kappa acos(mu . n)) / (2 pi (1 + exp(-kappa pi)))``,
and not with its cosine, which makes the loss robust to a few wrong pixels of the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Beyond this cosine, 2.56 degrees from the axis, the gradient of acos diverges: such pixels are left out.
EDGE = 0.999

# (pred ``b 3 n``, kappa ``b 1 n``, target ``b 3 n``) -> cost ``b 1 n``, and the pixels that count.
Cost = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _cosine(pred: Tensor, target: Tensor) -> Tensor:
    """``b 1 n``; neither needs to be of unit length."""
    return F.cosine_similarity(pred, target, dim=1)[:, None]


def _acos(cosine: Tensor) -> tuple[Tensor, Tensor]:
    """The angle in radians, and the pixels that count; clamped, so that no gradient is infinite elsewhere."""
    return torch.acos(cosine.clamp(-EDGE, EDGE)), cosine.detach().abs() < EDGE


def l1(pred: Tensor, kappa: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the absolute differences of the three components."""
    return (pred - target).abs().sum(1, keepdim=True), torch.ones_like(kappa, dtype=torch.bool)


def l2(pred: Tensor, kappa: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance."""
    return (pred - target).square().sum(1, keepdim=True), torch.ones_like(kappa, dtype=torch.bool)


def angle(pred: Tensor, kappa: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The angle, in radians; not within 2.56 degrees of right or of opposite."""
    return _acos(_cosine(pred, target))


def von_mises_fisher(pred: Tensor, kappa: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under ``kappa exp(kappa mu . n) / (4 pi sinh kappa)``, less log 2 pi."""
    cosine = _cosine(pred, target)
    cost = -kappa.log() - kappa * (cosine - 1) + torch.log1p(-torch.exp(-2 * kappa))
    return cost, cosine.detach() < EDGE


def angular_von_mises_fisher(pred: Tensor, kappa: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under the distribution above, less log 2 pi; not within 2.56 degrees of the axis."""
    apart, counts = _acos(_cosine(pred, target))
    return -torch.log1p(kappa.square()) + kappa * apart + torch.log1p(torch.exp(-kappa * math.pi)), counts


COSTS: dict[str, Cost] = {
    "angular_vmf": angular_von_mises_fisher,
    "vmf": von_mises_fisher,
    "angle": angle,
    "l1": l1,
    "l2": l2,
}


def mean_cost(
    name: str, pred: Tensor, kappa: Tensor, target: Tensor, mask: Tensor, pooled: bool = False
) -> Tensor:
    """The loss of each image: the mean over its pixels that count, 0 when there are none.

    Args:
        name: one of `COSTS`.
        pred: directions ``b 3 n`` (or ``b 3 h w``).
        kappa: ``b 1 n``, above 0; only the first two of `COSTS` use it.
        target: ``b 3 n``; anything outside ``mask``.
        mask: ``b 1 n`` bool.
        pooled: weight an image by its pixels: the mean of the result is the mean over all pixels of the batch that
            count, as in the released code of Bae et al. (2021), instead of the mean of the images' means.

    Returns:
        ``b``, in float32 at least.
    """
    kind = torch.promote_types(pred.dtype, torch.float32)
    pred, kappa, target = (x.to(kind).flatten(2) for x in (pred, kappa, target))
    mask = mask.flatten(2)
    # A zero vector has no cosine but a gradient; invalid pixels must have no influence.
    up = target.new_tensor([0.0, 0.0, 1.0])[None, :, None]
    cost, counts = COSTS[name](pred, kappa, torch.where(mask, target, up))
    keep = (counts & mask).to(kind)
    pixels = keep.sum((1, 2))
    if pooled:
        pixels = pixels.mean().expand_as(pixels)
    return (cost * keep).sum((1, 2)) / pixels.clamp(min=1 / len(pixels) if pooled else 1)


def expected_angle(kappa: Tensor) -> Tensor:
    """Expected angular error in degrees, 0 to 90, of a prediction of concentration ``kappa``."""
    k = kappa.to(torch.promote_types(kappa.dtype, torch.float32))
    off = 2 * k / (k.square() + 1) + math.pi * torch.sigmoid(-k * math.pi)
    return torch.rad2deg(off)
