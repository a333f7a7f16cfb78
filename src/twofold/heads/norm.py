"""Batch normalisation for heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) whose state is all floats, so that it can be saved in half precision.

    The running mean and variance, of momentum 0.1, are buffers: saved and loaded with the weights, and updated by every
    forward pass in training mode, also of a frozen head. Under gradient accumulation each micro-batch is normalised on
    its own.

    A single value per channel has no variance: it is normalised by the running statistics and does not update them.

    Args:
        width: channels of what is normalised, ``b width h w``.
        eps: added to the variance.
        affine: whether to learn a scale and a shift.
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
        batch = self.training and x.numel() > x.shape[1]
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, batch, 0.1, self.eps
        )
