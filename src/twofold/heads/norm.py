"""Batch normalisation for heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) whose state is all of floats, so that it can be saved in half.

    The running mean and variance, of momentum 0.1, are buffers: part of the state, saved and read with the weights, and
    changed by every look in training mode, also of a head whose weights do not learn. Under gradient accumulation each
    part of a batch is normalised on its own.

    A single value a channel, the whole of one image, has no variance: it is normalised by the running ones, which it
    leaves as they are.

    Args:
        width: channels of what is normalised, ``b width h w``.
        eps: added to the variance.
        affine: whether a gain and an offset are learned.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``b width h w``, normalised over images and pixels, or by the running statistics in evaluation."""
        several = x.numel() > x.shape[1]
        batch = self.training and several
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, batch, 0.1, self.eps
        )
