"""One look and done."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from ..diffusion import Rngs, Schedule, randn_tensor
from .query import Answer, ClassLabels, Look, Parts, Query, TimeStep


@checked(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class OneStep:
    """One look at the clean image latent (GenPercept, eq. 11-12; Lotus).

    This is deterministic multi-step diffusion with the image latent as the noise and beta = (1, 1): alpha is 0
    and sigma is 1 at every time step, so a v-prediction is minus the answer, an x0-prediction the answer itself, and
    ten steps are one. The labels are not touched in making the query, so an invalid label cannot leak.

    Attributes:
        timestep: what the network is told (GenPercept 1, Lotus 999).
        predicts: ``v`` (GenPercept) or ``x0`` (Lotus).
        condition: ``replace``: the network is shown the image latent alone; ``concat``: image latent, then a state.
        start: the state where there is one: ``gaussian`` (Lotus-G) or ``zeros``.
        taught: the time step told in training: the ``same``, or a ``random`` one (GenPercept's default).
        encode: image latents are the posterior's ``mode``, or a ``sample`` of it (Lotus).
        class_labels: numbers given to a network with a class embedding: Lotus' task switch.
        parts: how many targets the network answers at once, each with the channels of a latent.
        noised: whether the image latent is shown with the noise of the time step told (Diff-2-in-1's release, at 0);
            where features are read, and not the answer.
    """

    timestep: TimeStep = 1
    predicts: Literal["v", "x0"] = "v"
    condition: Literal["replace", "concat"] = "replace"
    start: Literal["gaussian", "zeros"] = "gaussian"
    taught: Literal["same", "random"] = "same"
    encode: Literal["mode", "sample"] = "mode"
    class_labels: ClassLabels | None = None
    parts: Parts = 1
    noised: bool = False
    kind: Literal["one_step"] = "one_step"

    def __post_init__(self) -> None:
        if self.condition == "replace" and self.parts != 1:
            raise ValueError(
                f"{self.parts} parts need condition='concat': the image latent is only one part's size"
            )
        if self.noised and self.condition != "replace":
            raise ValueError("noised is about the image latent alone: it needs condition='replace'")

    @property
    def random(self) -> bool:
        """Whether two seeds give two answers."""
        return (
            self.noised
            or self.encode == "sample"
            or (self.condition == "concat" and self.start == "gaussian")
        )

    def channels(self, latent: int) -> int:
        """What a network with latents of ``latent`` channels is shown."""
        return latent * (1 + self.parts) if self.condition == "concat" else latent

    def _query(self, image: Tensor, t: Tensor, rng: Rngs, schedule: Schedule) -> Query:
        b, z, h, w = image.shape
        zero = image.new_zeros(b, 1, 1, 1)
        if self.noised:
            image, _, _ = schedule.noised(image, randn_tensor(image.shape, rng, image), t)
        if self.condition == "replace":
            return Query(image, t, image, zero, zero + 1, self.predicts)
        shape = (b, z * self.parts, h, w)
        state = randn_tensor(shape, rng, image) if self.start == "gaussian" else image.new_zeros(shape)
        return Query(torch.cat([image, state], 1), t, state, zero, zero + 1, self.predicts)

    def prepare(self, image: Tensor, target: Tensor, rng: torch.Generator, schedule: Schedule) -> Query:
        """What to show the network in training, for latents ``b z h w`` of image and target."""
        t = torch.full((len(image),), self.timestep)
        if self.taught == "random":
            t = torch.randint(schedule.steps, (len(image),), generator=rng)
        return self._query(image, t.to(image.device), rng, schedule)

    def solve(self, look: Look, image: Tensor, rng: Rngs, schedule: Schedule) -> Answer:
        """The answer for image latents ``b z h w``; ``rng`` is one generator, or one an image."""
        t = torch.full((len(image),), self.timestep, device=image.device)
        return look(self._query(image, t, rng, schedule))
