"""Distributions of directions, and what an answer under them costs (Bae et al. 2021; von Mises-Fisher).

An answer is a direction mu and a concentration kappa: the larger, the surer. The angular von Mises-Fisher distribution
falls with the angle itself, ``p(n) = (kappa^2 + 1) exp(-kappa acos(mu . n)) / (2 pi (1 + exp(-kappa pi)))``, and not
with its cosine, so that a few wrong pixels of the truth do not rule the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Where the cosine is beyond this, 2.56 degrees from the axis, acos has no slope to speak of: nothing is learned there.
EDGE = 0.999

# (said ``b 3 n``, kappa ``b 1 n``, wanted ``b 3 n``) -> cost ``b 1 n``, and where it counts.
Cost = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _cosine(said: Tensor, wanted: Tensor) -> Tensor:
    """``b 1 n``; neither needs to be of unit length."""
    return F.cosine_similarity(said, wanted, dim=1)[:, None]


def _acos(cosine: Tensor) -> tuple[Tensor, Tensor]:
    """The angle in radians and where it may be learned from; held inside, so that no slope is infinite elsewhere."""
    return torch.acos(cosine.clamp(-EDGE, EDGE)), cosine.detach().abs() < EDGE


def l1(said: Tensor, kappa: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The three numbers' absolute differences, added."""
    return (said - wanted).abs().sum(1, keepdim=True), torch.ones_like(kappa, dtype=torch.bool)


def l2(said: Tensor, kappa: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance."""
    return (said - wanted).square().sum(1, keepdim=True), torch.ones_like(kappa, dtype=torch.bool)


def angle(said: Tensor, kappa: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The angle, in radians; not within 2.56 degrees of right or of opposite."""
    return _acos(_cosine(said, wanted))


def von_mises_fisher(said: Tensor, kappa: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under ``kappa exp(kappa mu . n) / (4 pi sinh kappa)``, less log 2 pi."""
    cosine = _cosine(said, wanted)
    cost = -kappa.log() - kappa * (cosine - 1) + torch.log1p(-torch.exp(-2 * kappa))
    return cost, cosine.detach() < EDGE


def angular_von_mises_fisher(said: Tensor, kappa: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under the distribution above, less log 2 pi; not within 2.56 degrees of the axis."""
    apart, counts = _acos(_cosine(said, wanted))
    return -torch.log1p(kappa.square()) + kappa * apart + torch.log1p(torch.exp(-kappa * math.pi)), counts


COSTS: dict[str, Cost] = {
    "angular_vmf": angular_von_mises_fisher,
    "vmf": von_mises_fisher,
    "angle": angle,
    "l1": l1,
    "l2": l2,
}


def mean_cost(
    name: str, said: Tensor, kappa: Tensor, wanted: Tensor, mask: Tensor, pooled: bool = False
) -> Tensor:
    """What each image's answer costs: the mean over its pixels that count, 0 where there are none.

    Args:
        name: one of `COSTS`.
        said: directions ``b 3 n`` (or ``b 3 h w``).
        kappa: ``b 1 n``, above 0; the first two of `COSTS` alone look at it.
        wanted: ``b 3 n``; anything where not ``mask``.
        mask: ``b 1 n`` bool.
        pooled: whether an image counts by its pixels: then the mean of what is returned is the mean over all pixels of
            the batch that count, as in the released code of Bae et al. (2021), and not the mean of the images' means.

    Returns:
        ``b``, in float32 at least.
    """
    kind = torch.promote_types(said.dtype, torch.float32)
    said, kappa, wanted = (x.to(kind).flatten(2) for x in (said, kappa, wanted))
    mask = mask.flatten(2)
    # A zero vector has no cosine and a slope of its own; what is not known must not matter.
    up = wanted.new_tensor([0.0, 0.0, 1.0])[None, :, None]
    cost, counts = COSTS[name](said, kappa, torch.where(mask, wanted, up))
    keep = (counts & mask).to(kind)
    pixels = keep.sum((1, 2))
    if pooled:
        pixels = pixels.mean().expand_as(pixels)
    return (cost * keep).sum((1, 2)) / pixels.clamp(min=1 / len(pixels) if pooled else 1)


def expected_angle(kappa: Tensor) -> Tensor:
    """Degrees that an answer of concentration ``kappa`` is off on average, under the angular distribution: 0 to 90."""
    k = kappa.to(torch.promote_types(kappa.dtype, torch.float32))
    off = 2 * k / (k.square() + 1) + math.pi * torch.sigmoid(-k * math.pi)
    return torch.rad2deg(off)
