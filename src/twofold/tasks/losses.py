"""Losses of encoded targets: plain functions (prediction, target, mask) -> scalar.

Predictions and targets are ``b c h w``, masks ``b 1 h w`` bool. Pixels outside the mask have no influence; with an
empty mask the loss is 0. Losses of one task only are in the task's file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this probability binary cross-entropy continues as its tangent, so that the gradient stays finite and not zero.
MIN_PROBABILITY = 0.01


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``error`` (``b c h w``) where ``mask`` (``b 1 h w``) holds; 0 where it holds nowhere."""
    mask = mask.expand_as(error)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def mse(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Masked mean squared error."""
    return masked_mean((pred - target).square(), mask)


def l1(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Masked mean absolute error."""
    return masked_mean((pred - target).abs(), mask)


def on_channel_mean(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``loss`` on the mean over channels, for tasks whose map is decoded from that mean.

    GenPercept averages the three decoded channels of depth, disparity, masks and mattes before every image-space loss
    (sec. 2.2), so that errors that cancel in the map cost nothing. Channel by channel, the squared error is larger by
    the variance of the channels.
    """

    @wraps(loss)
    def on_mean(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return loss(pred.mean(1, keepdim=True), target.mean(1, keepdim=True), mask)

    return on_mean


def gradient(pred: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching (MiDaS, Ranftl et al. 2020, eq. 11), both directions, ``scales`` halvings."""
    total = pred.new_zeros(())
    for k in range(scales):
        step = 2**k
        error, valid = (pred - target)[..., ::step, ::step], mask[..., ::step, ::step]
        for dim in (-1, -2):
            if error.shape[dim] < 2:
                continue
            change, both = neighbour_differences(error, valid, dim)
            total = total + masked_mean(change, both)
    return total / scales


def binary_cross_entropy(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy in nats of foreground probabilities p, encoded as 2 p - 1.

    The prediction is decoded linearly, not by a sigmoid, so p may leave [0, 1]. There, and below `MIN_PROBABILITY`, the
    logarithm continues as its tangent on the wrong side and is 0 on the right one. A target between 0 and 1 costs its
    own entropy even for a perfect prediction.
    """
    p, g = probability(pred), probability(target).clamp(0, 1)
    return masked_mean(g * _neg_log(p) + (1 - g) * _neg_log(1 - p), mask)


def balanced_binary_cross_entropy(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`binary_cross_entropy` with equal weight for an image's foreground and background (Xie & Tu 2015, HED).

    Each pixel's loss is weighted by the fraction of the image's valid pixels that have the other label, so an image of
    one label costs nothing, as in the multi-task benchmarks' programs (ASTMT, Maninis et al. 2019; InvPT).
    """
    p, g = probability(pred), probability(target).clamp(0, 1)
    valid = mask.expand_as(g).to(g)
    front = (g * valid).sum((1, 2, 3), keepdim=True) / valid.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return masked_mean((1 - front) * g * _neg_log(p) + front * (1 - g) * _neg_log(1 - p), mask)


def soft_iou(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 minus intersection over union of probabilities, a mean over the images with a valid pixel, in [0, 1].

    Minimum over maximum: for targets of 0 and 1 this is the loss of Rahman & Wang (2016); for others it is 0 only for a
    perfect prediction. An image without foreground in both costs nothing. The gradient is zero outside [-1, 1]; combine
    it with another loss.
    """
    p, g = (probability(x).clamp(0, 1) * mask for x in (pred, target))
    both, either = torch.minimum(p, g).flatten(1).sum(1), torch.maximum(p, g).flatten(1).sum(1)
    cost = torch.where(either > 0, 1 - both / torch.where(either > 0, either, 1), either * 0)
    return cost.sum() / mask.flatten(1).any(1).sum().clamp(min=1)


def cross_entropy(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy in nats of class logits.

    Args:
        pred: logits ``b n h w``.
        target: class ids ``b 1 h w``, whole numbers of any dtype from 0 to n - 1; anything outside ``mask``.
        mask: ``b 1 h w`` bool; False for ignored pixels.

    Raises:
        ValueError: an id without a logit inside the mask.
    """
    ids = torch.where(mask, target, 0).long()
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or most >= pred.shape[1]:
        strange = most if most >= pred.shape[1] else least
        raise ValueError(
            f"the target has the class {strange}; the logits are of the classes 0 to {pred.shape[1] - 1}"
        )
    return masked_mean(F.cross_entropy(pred, ids[:, 0], reduction="none")[:, None], mask)


def neighbour_differences(error: Tensor, valid: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Absolute differences of neighbours along ``dim``, and where both are valid."""
    n = error.shape[dim] - 1
    both = valid.narrow(dim, 1, n) & valid.narrow(dim, 0, n)
    return (error.narrow(dim, 1, n) - error.narrow(dim, 0, n)).abs(), both


def probability(encoded: Tensor) -> Tensor:
    """An encoded mask ``b c h w`` in [-1, 1] to ``b 1 h w`` in [0, 1], the mean over channels."""
    return (encoded.mean(1, keepdim=True) + 1) / 2


def _neg_log(p: Tensor) -> Tensor:
    """-log p, 0 above 1, and below `MIN_PROBABILITY` the tangent there."""
    tangent = (MIN_PROBABILITY - p) / MIN_PROBABILITY - math.log(MIN_PROBABILITY)
    return torch.where(p > MIN_PROBABILITY, -p.clamp(MIN_PROBABILITY, 1).log(), tangent)


# The losses of tasks whose map is the mean over channels: depth in every space, masks, mattes.
MEAN_LOSSES = {"mse": on_channel_mean(mse), "l1": on_channel_mean(l1), "gradient": on_channel_mean(gradient)}
