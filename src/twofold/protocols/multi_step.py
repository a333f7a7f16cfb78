"""Multi-step prediction: denoising from noise, zeros or the image latent."""

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
        steps: denoising steps.
        start: the first state: ``gaussian`` noise (GenPercept eq. 6-7), ``zeros``, or the ``image`` latent, which is
            then the noise in training too (eq. 8-10).
        condition: the network's input: ``concat``: image latent and state, concatenated on channels; ``replace``: the
            state alone, for ``start="image"``.
        noise: the schedule; None for the network's.
        spacing: spacing of the time steps, as in diffusers. ``offset`` is added to ``leading`` ones.
        timesteps: explicit time steps, from noisy to clean, instead of ``steps`` and ``spacing``.
        sampler: ``ddim``; ``euler``, the same step in other coordinates; or ``lcm``.
        final: the prediction: the ``x0`` of the last step, or ``prev``, the state after it.
        use_image_as_noise: DDIM steps use the image latent as the noise instead of computing it from the state (DMP).
        noise_strategy: strategy of multi-resolution noise in training; None for Gaussian noise.
        noise_strength: strength of multi-resolution noise; if ``annealed``, times t / T (Marigold).
        train_timestep: the time step in training; None for a random one.
        encode, class_labels, num_outputs: as in `OneStep`.
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
            raise ValueError("there is no denoising step; expected at least 1 step and non-empty timesteps")
        if (self.start == "image") != (self.condition == "replace"):
            raise ValueError(
                f"start={self.start!r} cannot be used with condition={self.condition!r}: start='image' needs "
                "condition='replace' (the input is the state alone), noise or zeros need 'concat' (image latent and "
                "state)"
            )
        if self.num_outputs != 1 and self.start == "image":
            raise ValueError(
                f"{self.num_outputs} outputs cannot start from one image latent; use start='gaussian'"
            )
        if self._only_noise and self.final == "prev":
            raise ValueError(
                "at beta = (1, 1) the state after a step is still the initial noise; use final='x0'"
            )
        leading_once = self.steps == 1 and self.spacing == "leading" and self.timesteps is None
        if leading_once and self.start == "gaussian" and self.sampler == "ddim" and not self._only_noise:
            raise ValueError(
                "one leading-spaced step passes pure noise with a time step of almost no noise (0 or 1); use "
                "spacing='trailing', which starts at the last time step"
            )

    @property
    def _only_noise(self) -> bool:
        """Whether every time step is pure noise, as at beta = (1, 1)."""
        return self.noise is not None and self.noise.start == self.noise.end == 1

    @property
    def is_stochastic(self) -> bool:
        """Whether the prediction depends on the seed."""
        drawn = self.sampler == "lcm" and len(self.timesteps or range(self.steps)) > 1
        return self.encode == "sample" or self.start == "gaussian" or drawn

    def channels(self, latent: int) -> int:
        """Input channels of a network with latents of ``latent`` channels."""
        return latent * (1 + self.num_outputs) if self.condition == "concat" else latent

    def times(self, schedule: Schedule) -> list[int]:
        """The time steps, from noisy to clean."""
        if self.timesteps is not None:
            return list(self.timesteps)
        if self.sampler == "lcm":
            return lcm_timesteps(self.steps, schedule.steps)
        return schedule.timesteps(self.steps, self.spacing, self.offset if self.spacing == "leading" else 0)

    def _input(self, image: Tensor, state: Tensor, t: Tensor, schedule: Schedule) -> ModelInput:
        alpha, sigma = schedule.scales_like(t, state)
        x = torch.cat([image, state], 1) if self.condition == "concat" else state
        return ModelInput(x, t, state, alpha, sigma, schedule.prediction_type)

    def _start(self, image: Tensor, rng: Rngs) -> Tensor:
        if self.start == "image":
            return image
        shape = (len(image), image.shape[1] * self.num_outputs, *image.shape[2:])
        return randn_tensor(shape, rng, image) if self.start == "gaussian" else image.new_zeros(shape)

    def prepare(self, image: Tensor, target: Tensor, rng: torch.Generator, schedule: Schedule) -> ModelInput:
        """The network's training input for latents of image (``b z h w``) and target."""
        schedule = schedule if self.noise is None else self.noise.schedule
        b = len(image)
        if self.start == "zeros":  # the state is independent of the target, as in inference
            t = torch.full((b,), self.times(schedule)[0], device=image.device)
            return self._input(image, torch.zeros_like(target), t, schedule)
        t = torch.randint(schedule.steps, (b,), generator=rng)
        if self.train_timestep is not None:
            t = torch.full((b,), self.train_timestep)
        noise = image if self.start == "image" else randn_tensor(target.shape, rng, target)
        if self.noise_strategy is not None and self.start == "gaussian":
            share = t.to(noise) / schedule.steps if self.annealed else torch.ones(b)
            noise = multi_resolution(noise, rng, self.noise_strength * share, self.noise_strategy)
        state, _, _ = schedule.add_noise(target, noise, t.to(image.device))
        return self._input(image, state, t.to(image.device), schedule)

    def _scales(self, schedule: Schedule, times: list[int]) -> list[Scales] | None:
        """Alpha and sigma after each step; None if they are those of the next time step.

        Evenly spaced DDIM subtracts T // n, as in diffusers: if n does not divide T, this is not exactly the next time
        step, and the last step may stop before the end.
        """
        if self.timesteps is not None or self.sampler != "ddim" or schedule.prediction_type == "flow":
            return None
        stride = schedule.steps // len(times)
        after = [t - stride for t in times]
        return [
            schedule.scales(torch.tensor([t])) if t >= 0 else schedule.scales_after([t])[0] for t in after
        ]

    def sample(self, denoise: DenoiseFn, image: Tensor, rng: Rngs, schedule: Schedule) -> DenoiserOutput:
        """The prediction for image latents ``b z h w``; ``rng`` is one generator, or one per image."""
        schedule = schedule if self.noise is None else self.noise.schedule
        start, times = self._start(image, rng), self.times(schedule)
        output = DenoiserOutput(start)

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            nonlocal output
            output = denoise(self._input(image, x, t, schedule))
            return output.x0

        noise = image if self.use_image_as_noise else None
        scales = self._scales(schedule, times)
        state = sample(predict_x0, start, schedule, times, self.sampler, scales=scales, rngs=rng, noise=noise)
        # A consistency model's clean latent is not the network's x0, but the state after the last step.
        is_state = self.final == "prev" or self.sampler == "lcm"
        return DenoiserOutput(state, output.features) if is_state else output
