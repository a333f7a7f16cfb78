"""How an answer is reached: what the network is shown in training and in use, side by side in one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import Tensor


@dataclass(frozen=True)
class Query:
    """``x = alpha * answer + sigma * noise``, as far as the network is concerned.

    Attributes:
        x: ``b z h w``, what the network is shown.
        t: ``b``, the time step it is told.
        alpha: ``b 1 1 1``, how its word is to be read.
        sigma: ``b 1 1 1``.
    """

    x: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Answer:
    """The clean latent ``b z h w`` the network sees, and the features it saw it with."""

    x0: Tensor
    features: tuple[Tensor, ...] = ()


Look = Callable[[Query], Answer]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class OneStep:
    """One deterministic look at the clean image latent (GenPercept, eq. 11-12).

    This is deterministic multi-step diffusion with the image latent as the noise and beta = (1, 1): alpha is 0
    and sigma is 1 at every time step, so the network is shown the image alone, a v-prediction is minus the
    answer, and ten steps are one. The labels are not touched in making the query, so an invalid label cannot leak.

    Attributes:
        timestep: what the network is told, in training and in use.
    """

    timestep: int = 1

    def _query(self, image: Tensor) -> Query:
        b = len(image)
        t = torch.full((b,), self.timestep, device=image.device)
        zero = image.new_zeros(b, 1, 1, 1)
        return Query(image, t, zero, zero + 1)

    def prepare(self, image: Tensor, target: Tensor, rng: torch.Generator) -> Query:
        """What to show the network in training, for latents ``b z h w`` of image and target."""
        return self._query(image)

    def solve(self, look: Look, image: Tensor, rng: torch.Generator) -> Answer:
        """The answer for an image latent ``b z h w``."""
        return look(self._query(image))
