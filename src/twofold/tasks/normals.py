"""Surface normals: unit vectors in the frame RUB (x right, y up, z to the viewer), encoded without scaling."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import visualization
from ..geometry import unit
from ..metrics import NORMALS, angle
from ..targets import TARGETS
from .ensemble import closest
from .image_tasks import unaligned
from .losses import gradient, masked_mean, mse
from .task import Task


def encode(normals: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors ``b 3 h w`` unchanged, 0 where invalid; the mask is ``valid``."""
    return torch.where(valid, normals, torch.zeros_like(normals)), valid


def decode(encoded: Tensor) -> Tensor:
    """Encoded normals ``b 3 h w`` to unit vectors; a zero vector becomes (0, 0, 1).

    Values beyond [-1, 1] are not clipped first, because that would change the direction.
    """
    encoded = encoded.float()
    towards = torch.tensor([0.0, 0.0, 1.0], device=encoded.device).reshape(1, 3, 1, 1)
    # The squared length, because torch's norm over a leading dimension is slow (see `unit`).
    long = (encoded * encoded).sum(1, keepdim=True) > 1e-8
    return unit(torch.where(long, encoded, towards))


def angular(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean angle in radians (GenPercept sec. 2.2); the cosine is clamped to +-(1 - 1e-4) for a finite gradient."""
    cosine = torch.cosine_similarity(pred, target, dim=1, eps=1e-6)[:, None]
    return masked_mean(torch.acos(cosine.clamp(-1 + 1e-4, 1 - 1e-4)), mask)


def l1(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels of the sum of absolute component differences, of the prediction scaled to unit length.

    A loss of multi-task benchmarks (ATRC, Bruggemann et al. 2021; InvPT, Ye & Xu 2022).
    """
    return masked_mean((unit(pred) - target).abs().sum(1, keepdim=True), mask)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between vectors ``*b 3 h w``: ``*b 1 h w``."""
    return angle(a, b).unsqueeze(-3)


normals = Task(
    name="normals",
    channels=3,
    unit="unit vector, frame RUB",
    space="normals",
    frame="RUB",
    prompt="surface normals",
    encode=encode,
    decode=decode,
    losses={"angular": angular, "mse": mse, "gradient": gradient, "l1": l1},
    weights={"angular": 1.0, "mse": 0.5},
    flip=TARGETS["normals"].flip,
    distance=distance,
    merge=closest,
    show=visualization.color_normals,
    align=unaligned,
    metrics=(NORMALS["mean"], NORMALS["median"], NORMALS["below_11.25"]),
)
