"""The input of a denoising network, and how its prediction is converted to x0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..diffusion import MAX_STEPS, Parametrization, to_x0, x0_to_prediction

# Protocols are read from untrusted files: these ranges bound compute and memory.
TimeStep = Annotated[int, Field(ge=0, le=MAX_STEPS)]
NumOutputs = Annotated[int, Field(ge=1, le=64)]
ClassLabels = Annotated[tuple[float, ...], Field(max_length=1024)]


@dataclass(frozen=True)
class ModelInput:
    """An input of the network, whose ``state`` is ``alpha * x0 + sigma * noise``.

    Attributes:
        x: ``b c h w``, the network's input: the state, or image latent and state concatenated on channels.
        t: ``b``, the time step.
        state: ``b z h w``.
        alpha: ``b 1 1 1``.
        sigma: ``b 1 1 1``.
        prediction_type: of the network.
    """

    x: Tensor
    t: Tensor
    state: Tensor
    alpha: Tensor
    sigma: Tensor
    prediction_type: Parametrization

    def select(self, index: Sequence[int]) -> ModelInput:
        """The inputs at ``index`` in the batch."""
        at = list(index)
        if at == list(range(len(self.x))):
            return self
        return ModelInput(
            self.x[at], self.t[at], self.state[at], self.alpha[at], self.sigma[at], self.prediction_type
        )

    def to_x0(self, prediction: Tensor) -> Tensor:
        """The clean latent ``b z h w`` of the network's prediction."""
        return to_x0(prediction, self.state, self.alpha, self.sigma, self.prediction_type)

    def training_target(self, x0: Tensor) -> Tensor:
        """The prediction that `to_x0` converts to ``x0`` (``b z h w``): the target of a loss on latents."""
        return x0_to_prediction(x0, self.state, self.alpha, self.sigma, self.prediction_type)


def collate(inputs: Sequence[ModelInput]) -> ModelInput:
    """Concatenate inputs of one protocol and one shape to a batch.

    Raises:
        ValueError: they differ in prediction type.
    """
    if len({q.prediction_type for q in inputs}) != 1:
        raise ValueError(
            "inputs of several prediction types cannot be one batch; collate those of one protocol"
        )
    x, t, state, alpha, sigma = (
        torch.cat([getattr(q, name) for q in inputs]) for name in ("x", "t", "state", "alpha", "sigma")
    )
    return ModelInput(x, t, state, alpha, sigma, inputs[0].prediction_type)


def expand_class_labels(labels: ClassLabels | None, x: Tensor) -> Tensor | None:
    """A protocol's class labels as the network's input ``b n`` beside ``x`` (``b c h w``); None if it has none."""
    return None if labels is None else x.new_tensor(labels).expand(len(x), -1)


@dataclass(frozen=True)
class DenoiserOutput:
    """The latent ``b z h w`` that a protocol predicts, and the features of the last denoising step."""

    x0: Tensor
    features: tuple[Tensor, ...] = ()


DenoiseFn = Callable[[ModelInput], DenoiserOutput]
