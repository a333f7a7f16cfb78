"""Losses of what the network painted: plain functions (canvas said, canvas wanted, mask) -> scalar.

Canvases are ``b c h w``, masks ``b 1 h w`` bool; where a mask holds nothing is learned elsewhere, and where it holds
nowhere the loss is 0. Those of one task only are in the task's file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this share binary cross-entropy goes on as its tangent: an answer far off is pulled back, not given up.
LEAST_SHARE = 0.01


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``error`` (``b c h w``) where ``mask`` (``b 1 h w``) holds; 0 where it holds nowhere."""
    mask = mask.expand_as(error)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def mse(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Masked mean squared error of canvases."""
    return masked_mean((said - wanted).square(), mask)


def l1(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Masked mean absolute error of canvases."""
    return masked_mean((said - wanted).abs(), mask)


def of_mean(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``loss`` on the mean over channels of both canvases, for tasks whose map is decoded from that mean.

    GenPercept averages the three decoded channels of depth, disparity, masks and mattes before every image-space loss
    (sec. 2.2): channels whose errors cancel in the map cost nothing. Taken channel by channel, the squared error is
    larger by the variance of the channels.
    """

    @wraps(loss)
    def on_mean(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return loss(pred.mean(1, keepdim=True), target.mean(1, keepdim=True), mask)

    return on_mean


def gradient(said: Tensor, wanted: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching (MiDaS, Ranftl et al. 2020, eq. 11), both directions, ``scales`` halvings."""
    total = said.new_zeros(())
    for k in range(scales):
        step = 2**k
        error, known = (said - wanted)[..., ::step, ::step], mask[..., ::step, ::step]
        for dim in (-1, -2):
            if error.shape[dim] < 2:
                continue
            change, both = _steps(error, known, dim)
            total = total + masked_mean(change, both)
    return total / scales


def gradient_vertical(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """GenPercept's gradient loss as its depth models were trained with it: from row to row, at one scale.

    Meant as MiDaS's, it is called on tensors of one dimension more, and compares neighbours along the wrong one.
    Canvases are averaged over channels first, and the sum is divided by the number of known pixels, not of pairs.
    For reproduction only: `gradient` is what it was meant to be.
    """
    error = (said - wanted).mean(1, keepdim=True)
    if error.shape[-2] < 2:
        return (error * 0).sum()
    change, both = _steps(error, mask, -2)
    return (change * both).sum() / mask.sum().clamp(min=1)


def binary_cross_entropy(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy in nats of shares of foreground, which canvases of [-1, 1] paint as 2 x - 1.

    What is said is read as it is decoded, linearly, and not through a sigmoid: the mean over channels, of which more
    than 1 and less than 0 is allowed. There, and below `LEAST_SHARE`, the logarithm is continued by its tangent on the
    wrong side and is 0 on the right one. A share between 0 and 1 costs its own entropy even where it is hit.
    """
    p, g = share(said), share(wanted).clamp(0, 1)
    return masked_mean(g * _surprise(p) + (1 - g) * _surprise(1 - p), mask)


def balanced_binary_cross_entropy(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """`binary_cross_entropy` in which foreground and background of a picture weigh the same (Xie & Tu 2015, HED).

    Each pixel's cost is weighted by the part of the picture's known pixels that is of the other kind, so a picture of
    one kind only costs nothing, as in the multi-task benchmarks' programs (ASTMT, Maninis et al. 2019; InvPT).
    """
    p, g = share(said), share(wanted).clamp(0, 1)
    known = mask.expand_as(g).to(g)
    front = (g * known).sum((1, 2, 3), keepdim=True) / known.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return masked_mean((1 - front) * g * _surprise(p) + front * (1 - g) * _surprise(1 - p), mask)


def soft_iou(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """1 minus intersection over union of shares, a mean over the images with a known pixel, in [0, 1].

    Minimum over maximum: for wanted shares of 0 and 1 this is the loss of Rahman & Wang (2016), for others it is 0 only
    where they are hit. An image without foreground in either costs nothing. There is no slope outside [-1, 1]; use it
    beside another loss.
    """
    p, g = (share(x).clamp(0, 1) * mask for x in (said, wanted))
    both, either = torch.minimum(p, g).flatten(1).sum(1), torch.maximum(p, g).flatten(1).sum(1)
    cost = torch.where(either > 0, 1 - both / torch.where(either > 0, either, 1), either * 0)
    return cost.sum() / mask.flatten(1).any(1).sum().clamp(min=1)


def cross_entropy(said: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy in nats of class logits.

    Args:
        said: logits ``b n h w``.
        wanted: class ids ``b 1 h w``, whole numbers of any dtype from 0 to n - 1; anything where not ``mask``.
        mask: ``b 1 h w`` bool; ignored pixels are those where it does not hold.

    Raises:
        ValueError: an id that is not ignored and has no logit.
    """
    ids = torch.where(mask, wanted, 0).long()
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or most >= said.shape[1]:
        strange = most if most >= said.shape[1] else least
        raise ValueError(f"there is no class {strange}: logits are of the classes 0 to {said.shape[1] - 1}")
    return masked_mean(F.cross_entropy(said, ids[:, 0], reduction="none")[:, None], mask)


def _steps(error: Tensor, known: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Absolute differences of neighbours along ``dim``, and where both are known."""
    n = error.shape[dim] - 1
    both = known.narrow(dim, 1, n) & known.narrow(dim, 0, n)
    return (error.narrow(dim, 1, n) - error.narrow(dim, 0, n)).abs(), both


def share(canvas: Tensor) -> Tensor:
    """What a canvas ``b c h w`` in [-1, 1] says of each pixel: ``b 1 h w`` in [0, 1], the mean over channels."""
    return (canvas.mean(1, keepdim=True) + 1) / 2


def _surprise(share: Tensor) -> Tensor:
    """-log of a share, at most that of 1, and below `LEAST_SHARE` its tangent there."""
    tangent = (LEAST_SHARE - share) / LEAST_SHARE - math.log(LEAST_SHARE)
    return torch.where(share > LEAST_SHARE, -share.clamp(LEAST_SHARE, 1).log(), tangent)


# The losses of canvases whose map is the mean over channels: depth in every space, masks, mattes.
MEAN_LOSSES = {"mse": of_mean(mse), "l1": of_mean(l1), "gradient": of_mean(gradient)}
