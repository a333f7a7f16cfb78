"""What a network is shown, and what is made of its word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..diffusion import MAX_STEPS, Parametrization, to_x0, x0_to_prediction

# Settings of protocols are read from files too: their ranges bound what is computed and allocated.
TimeStep = Annotated[int, Field(ge=0, le=MAX_STEPS)]
NumOutputs = Annotated[int, Field(ge=1, le=64)]
ClassLabels = Annotated[tuple[float, ...], Field(max_length=1024)]


@dataclass(frozen=True)
class ModelInput:
    """``state = alpha * answer + sigma * noise``, as far as the network is concerned.

    Attributes:
        x: ``b c h w``, what the network is shown: the state, or image latent and state concatenated on channels.
        t: ``b``, the time step it is told.
        state: ``b z h w``.
        alpha: ``b 1 1 1``, how its word is to be read.
        sigma: ``b 1 1 1``.
        prediction_type: what its word is.
    """

    x: Tensor
    t: Tensor
    state: Tensor
    alpha: Tensor
    sigma: Tensor
    prediction_type: Parametrization

    def select(self, places: Sequence[int]) -> ModelInput:
        """The queries at these places of the batch."""
        at = list(places)
        if at == list(range(len(self.x))):
            return self
        return ModelInput(
            self.x[at], self.t[at], self.state[at], self.alpha[at], self.sigma[at], self.prediction_type
        )

    def to_x0(self, prediction: Tensor) -> Tensor:
        """The network's word as a clean latent ``b z h w``."""
        return to_x0(prediction, self.state, self.alpha, self.sigma, self.prediction_type)

    def training_target(self, answer: Tensor) -> Tensor:
        """What the network has to say to be read as ``answer`` (``b z h w``): the target of a loss on latents."""
        return x0_to_prediction(answer, self.state, self.alpha, self.sigma, self.prediction_type)


def collate(queries: Sequence[ModelInput]) -> ModelInput:
    """Queries of one protocol and one shape as a batch.

    Raises:
        ValueError: their answers are not read in the same way.
    """
    if len({q.prediction_type for q in queries}) != 1:
        raise ValueError("queries whose answers are read differently cannot be one batch")
    x, t, state, alpha, sigma = (
        torch.cat([getattr(q, name) for q in queries]) for name in ("x", "t", "state", "alpha", "sigma")
    )
    return ModelInput(x, t, state, alpha, sigma, queries[0].prediction_type)


@dataclass(frozen=True)
class DenoiserOutput:
    """The latent ``b z h w`` that leaves the protocol, and the features of the last look."""

    x0: Tensor
    features: tuple[Tensor, ...] = ()


DenoiseFn = Callable[[ModelInput], DenoiserOutput]
