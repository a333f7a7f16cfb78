"""What a network is shown, and what is made of its word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..diffusion import Parametrization, to_x0, word_for


@dataclass(frozen=True)
class Query:
    """``state = alpha * answer + sigma * noise``, as far as the network is concerned.

    Attributes:
        x: ``b c h w``, what the network is shown: the state, or image latent and state joined on channels.
        t: ``b``, the time step it is told.
        state: ``b z h w``.
        alpha: ``b 1 1 1``, how its word is to be read.
        sigma: ``b 1 1 1``.
        predicts: what its word is.
    """

    x: Tensor
    t: Tensor
    state: Tensor
    alpha: Tensor
    sigma: Tensor
    predicts: Parametrization

    def read(self, prediction: Tensor) -> Tensor:
        """The network's word as a clean latent ``b z h w``."""
        return to_x0(prediction, self.state, self.alpha, self.sigma, self.predicts)

    def wanted(self, answer: Tensor) -> Tensor:
        """What the network has to say to be read as ``answer`` (``b z h w``): the target of a loss on latents."""
        return word_for(answer, self.state, self.alpha, self.sigma, self.predicts)


@dataclass(frozen=True)
class Answer:
    """The latent ``b z h w`` that leaves the protocol, and the features of the last look."""

    x0: Tensor
    features: tuple[Tensor, ...] = ()


Look = Callable[[Query], Answer]
