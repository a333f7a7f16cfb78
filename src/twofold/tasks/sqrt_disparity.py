"""The square root of inverse depth up to scale and shift: near is 1, and far is less compressed than in disparity."""

from __future__ import annotations

import torch

from .spaces import distance_task

sqrt_disparity = distance_task(
    "sqrt_disparity", "square root disparity map", torch.rsqrt, lambda x: 1 / x.square(), near=1
)
