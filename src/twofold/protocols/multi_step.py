"""A walk of several looks from noise, or from the image itself, to the answer."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from torch import Tensor

from ..diffusion import Rngs, Scales, Schedule, Spacing, lcm_timesteps, randn_tensor, sample
from .model_input import ClassLabels, DenoiseFn, DenoiserOutput, ModelInput, NumOutputs, TimeStep
from .noise import Noise, Strategy, multi_resolution


@checked(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class MultiStep:
    """Diffusion conditioned on an image: stochastic (Marigold), from zeros (E2E-FT), or from the image (DMP).

    Attributes:
        steps: looks, from noisy to clean.
        start: of the walk: ``gaussian`` noise (GenPercept eq. 6-7), ``zeros``, or the ``image`` latent, which then is
            the noise in training too (eq. 8-10).
        condition: ``concat``: the network is shown image latent, then state; ``replace``: the state alone, for
            ``start="image"``.
        noise: the schedule; the network's own when None.
        spacing: of the time steps, as diffusers spaces them. ``offset`` is added to ``leading`` ones.
        timesteps: explicit ones, from noisy to clean, instead of ``steps`` and ``spacing``.
        sampler: ``ddim``; ``euler``, the same step in other coordinates; or ``lcm``.
        final: what leaves the walk: ``x0`` as last seen, or ``prev``, the state after the last step.
        use_image_as_noise: DDIM steps take the image latent for the noise instead of reading it from the state (DMP).
        noise_strategy: how coarser noise is mixed into training noise, if it is.
        noise_strength: of that; it falls with the time step where ``annealed`` (Marigold).
        train_timestep: the time step of training; a random one when None.
        encode, class_labels, parts: as in `OneStep`.
    """

    steps: Annotated[int, Field(le=1000)] = 4
    start: Literal["gaussian", "zeros", "image"] = "gaussian"
    condition: Literal["concat", "replace"] = "concat"
    noise: Noise | None = None
    spacing: Spacing = "trailing"
    offset: Annotated[int, Field(ge=0, le=1000)] = 1
    timesteps: Annotated[tuple[TimeStep, ...], Field(max_length=1000)] | None = None
    sampler: Literal["ddim", "euler", "lcm"] = "ddim"
    final: Literal["prev", "x0"] = "x0"
    use_image_as_noise: bool = False
    noise_strategy: Strategy | None = None
    noise_strength: Annotated[float, Field(ge=0, le=1)] = 0.9
    annealed: bool = True
    train_timestep: TimeStep | None = None
    encode: Literal["mode", "sample"] = "mode"
    class_labels: ClassLabels | None = None
    num_outputs: NumOutputs = 1
    kind: Literal["multi_step"] = "multi_step"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.timesteps == ():
            raise ValueError("a walk has at least one step")
        if (self.start == "image") != (self.condition == "replace"):
            raise ValueError(
                f"start={self.start!r} does not go with condition={self.condition!r}: a walk from the image is shown "
                "the state alone ('replace'), one from noise or zeros needs the image beside it ('concat')"
            )
        if self.num_outputs != 1 and self.start == "image":
            raise ValueError(
                f"{self.num_outputs} outputs cannot start from one image latent; use start='gaussian'"
            )
        if self._only_noise and self.final == "prev":
            raise ValueError(
                "at beta = (1, 1) the state after a step is the noise it began with; use final='x0'"
            )
        leading_once = self.steps == 1 and self.spacing == "leading" and self.timesteps is None
        if leading_once and self.start == "gaussian" and self.sampler == "ddim" and not self._only_noise:
            raise ValueError(
                "one leading-spaced step would show the network pure noise and tell it that nearly all noise is "
                "gone (time step 0 or 1); use spacing='trailing', which starts at the last time step"
            )

    @property
    def _only_noise(self) -> bool:
        """At beta = (1, 1) every time step is pure noise, and which one is told does not matter."""
        return self.noise is not None and self.noise.start == self.noise.end == 1

    @property
    def is_stochastic(self) -> bool:
        """Whether two seeds give two answers."""
        drawn = self.sampler == "lcm" and len(self.timesteps or range(self.steps)) > 1
        return self.encode == "sample" or self.start == "gaussian" or drawn

    def channels(self, latent: int) -> int:
        """What a network with latents of ``latent`` channels is shown."""
        return latent * (1 + self.num_outputs) if self.condition == "concat" else latent

    def times(self, schedule: Schedule) -> list[int]:
        """The time steps of the walk."""
        if self.timesteps is not None:
            return list(self.timesteps)
        if self.sampler == "lcm":
            return lcm_timesteps(self.steps, schedule.steps)
        return schedule.timesteps(self.steps, self.spacing, self.offset if self.spacing == "leading" else 0)

    def _show(self, image: Tensor, state: Tensor, t: Tensor, schedule: Schedule) -> ModelInput:
        alpha, sigma = schedule.scales_like(t, state)
        x = torch.cat([image, state], 1) if self.condition == "concat" else state
        return ModelInput(x, t, state, alpha, sigma, schedule.prediction_type)

    def _start(self, image: Tensor, rng: Rngs) -> Tensor:
        if self.start == "image":
            return image
        shape = (len(image), image.shape[1] * self.num_outputs, *image.shape[2:])
        return randn_tensor(shape, rng, image) if self.start == "gaussian" else image.new_zeros(shape)

    def prepare(self, image: Tensor, target: Tensor, rng: torch.Generator, schedule: Schedule) -> ModelInput:
        """What to show the network in training, for latents of image (``b z h w``) and target."""
        schedule = schedule if self.noise is None else self.noise.schedule
        b = len(image)
        if self.start == "zeros":  # there is nothing of the target in the state, in training as in use
            t = torch.full((b,), self.times(schedule)[0], device=image.device)
            return self._show(image, torch.zeros_like(target), t, schedule)
        t = torch.randint(schedule.steps, (b,), generator=rng)
        if self.train_timestep is not None:
            t = torch.full((b,), self.train_timestep)
        noise = image if self.start == "image" else randn_tensor(target.shape, rng, target)
        if self.noise_strategy is not None and self.start == "gaussian":
            share = t.to(noise) / schedule.steps if self.annealed else torch.ones(b)
            noise = multi_resolution(noise, rng, self.noise_strength * share, self.noise_strategy)
        state, _, _ = schedule.add_noise(target, noise, t.to(image.device))
        return self._show(image, state, t.to(image.device), schedule)

    def _scales(self, schedule: Schedule, times: list[int]) -> list[Scales] | None:
        """Alpha and sigma after each step, where they are not those of the next time step.

        Evenly spaced DDIM goes back by T // n, as diffusers does: where n does not divide T that is not quite the next
        time step, and the last step may stop short of the end.
        """
        if self.timesteps is not None or self.sampler != "ddim" or schedule.prediction_type == "flow":
            return None
        stride = schedule.steps // len(times)
        after = [t - stride for t in times]
        return [
            schedule.scales(torch.tensor([t])) if t >= 0 else schedule.scales_after([t])[0] for t in after
        ]

    def sample(self, look: DenoiseFn, image: Tensor, rng: Rngs, schedule: Schedule) -> DenoiserOutput:
        """The answer for image latents ``b z h w``; ``rng`` is one generator, or one an image."""
        schedule = schedule if self.noise is None else self.noise.schedule
        start, times = self._start(image, rng), self.times(schedule)
        answer = DenoiserOutput(start)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            nonlocal answer
            answer = look(self._show(image, x, t, schedule))
            return answer.x0

        noise = image if self.use_image_as_noise else None
        scales = self._scales(schedule, times)
        state = sample(denoise, start, schedule, times, self.sampler, scales=scales, rngs=rng, noise=noise)
        # A consistency model's clean latent is not the network's x0, but the state after the last step.
        return (
            DenoiserOutput(state, answer.features)
            if self.final == "prev" or self.sampler == "lcm"
            else answer
        )
