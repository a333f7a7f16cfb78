"""One-step prediction from the clean image latent."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from ..diffusion import Rngs, Schedule, randn_tensor
from .model_input import ClassLabels, DenoiseFn, DenoiserOutput, ModelInput, NumOutputs, TimeStep


@checked(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class OneStep:
    """One forward pass on the clean image latent (GenPercept, eq. 11-12; Lotus).

    This is deterministic multi-step diffusion with the image latent as the noise and beta = (1, 1): alpha is 0
    and sigma is 1 at every time step, so a v-prediction is minus x0, an x0-prediction x0 itself, and ten steps equal
    one. The input does not depend on the labels, so an invalid label cannot leak into it.

    Attributes:
        timestep: the time step passed to the network (GenPercept 1, Lotus 999).
        prediction_type: ``v`` (GenPercept) or ``x0`` (Lotus).
        condition: ``replace``: the input is the image latent; ``concat``: image latent and state, on channels.
        start: the state of ``concat``: ``gaussian`` (Lotus-G) or ``zeros``.
        train_timesteps: in training: the ``same`` one, or a ``random`` one (GenPercept's default).
        encode: image latents are the posterior's ``mode``, or a ``sample`` of it (Lotus).
        class_labels: input of a network with a class embedding: Lotus' task switch.
        num_outputs: how many targets the network predicts at once, each with the channels of a latent.
        add_noise: whether the noise of the time step is added to the image latent (Diff-2-in-1's release, at 0); for
            heads that read features.
    """

    timestep: TimeStep = 1
    prediction_type: Literal["v", "x0"] = "v"
    condition: Literal["replace", "concat"] = "replace"
    start: Literal["gaussian", "zeros"] = "gaussian"
    train_timesteps: Literal["same", "random"] = "same"
    encode: Literal["mode", "sample"] = "mode"
    class_labels: ClassLabels | None = None
    num_outputs: NumOutputs = 1
    add_noise: bool = False
    kind: Literal["one_step"] = "one_step"

    def __post_init__(self) -> None:
        if self.condition == "replace" and self.num_outputs != 1:
            raise ValueError(
                f"{self.num_outputs} outputs need condition='concat': the image latent has the size of one"
            )
        if self.add_noise and self.condition != "replace":
            raise ValueError(
                "add_noise is for an input of the image latent alone: it needs condition='replace'"
            )

    @property
    def is_stochastic(self) -> bool:
        """Whether the prediction depends on the seed."""
        return (
            self.add_noise
            or self.encode == "sample"
            or (self.condition == "concat" and self.start == "gaussian")
        )

    def channels(self, latent: int) -> int:
        """Input channels of a network with latents of ``latent`` channels."""
        return latent * (1 + self.num_outputs) if self.condition == "concat" else latent

    def _input(self, image: Tensor, t: Tensor, rng: Rngs, schedule: Schedule) -> ModelInput:
        b, z, h, w = image.shape
        zero = image.new_zeros(b, 1, 1, 1)
        if self.add_noise:
            image, _, _ = schedule.add_noise(image, randn_tensor(image.shape, rng, image), t)
        if self.condition == "replace":
            return ModelInput(image, t, image, zero, zero + 1, self.prediction_type)
        shape = (b, z * self.num_outputs, h, w)
        state = randn_tensor(shape, rng, image) if self.start == "gaussian" else image.new_zeros(shape)
        return ModelInput(torch.cat([image, state], 1), t, state, zero, zero + 1, self.prediction_type)

    def prepare(self, image: Tensor, target: Tensor, rng: torch.Generator, schedule: Schedule) -> ModelInput:
        """The network's training input for image and target latents ``b z h w``."""
        t = torch.full((len(image),), self.timestep)
        if self.train_timesteps == "random":
            t = torch.randint(schedule.steps, (len(image),), generator=rng)
        return self._input(image, t.to(image.device), rng, schedule)

    def sample(self, denoise: DenoiseFn, image: Tensor, rng: Rngs, schedule: Schedule) -> DenoiserOutput:
        """The prediction for image latents ``b z h w``; ``rng`` is one generator, or one per image."""
        t = torch.full((len(image),), self.timestep, device=image.device)
        return denoise(self._input(image, t, rng, schedule))
