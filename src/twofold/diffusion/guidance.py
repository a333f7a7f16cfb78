"""Classifier-free guidance as a wrapper of a network's prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def guided(
    conditional: Callable[P, Tensor], unconditional: Callable[P, Tensor], scale: float
) -> Callable[P, Tensor]:
    """``unconditional + scale * (conditional - unconditional)`` (Ho & Salimans 2022, eq. 6 with w = scale - 1).

    Args:
        conditional: the prediction under the prompt; of any parametrization.
        unconditional: the same under the empty prompt, with the same arguments.
        scale: 1 disables guidance: ``conditional`` is returned and ``unconditional`` is never called.
    """
    if scale == 1:
        return conditional

    def predict(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return torch.lerp(unconditional(*args, **kwargs), conditional(*args, **kwargs), scale)

    return predict
