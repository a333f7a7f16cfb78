"""Synthesizer: captions, or an image and captions, to new images. The same diffusion model, turned to imagine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..backbones.backbone import Backbone
from ..diffusion import dpmpp_2m_timesteps, sample, to_x0
from ..finite import NonFiniteError, finite_per_image
from ..image import ImageInput, as_images, pad_to_multiple, same_size
from ..predict.base import describe_network


@dataclass(frozen=True)
class Synthesizer:
    """A backbone and how to sample from it.

    Attributes:
        backbone: the networks.
        steps: from pure noise; fewer are taken from a partly noised image.
        guidance: classifier-free guidance (Ho & Salimans 2022); 1 is none.
        sampler: ``ddim``, or ``dpmpp_2m`` (DPM-Solver++, Lu et al. 2022), which needs a third of the steps.
    """

    backbone: Backbone
    steps: int = 40
    guidance: float = 3.0
    sampler: Literal["ddim", "dpmpp_2m"] = "ddim"

    def __repr__(self) -> str:
        return (
            f"Synthesizer(steps={self.steps}, guidance={self.guidance:g}, sampler={self.sampler!r}, "
            f"{describe_network(self.backbone)})"
        )

    @torch.no_grad()
    def __call__(
        self,
        captions: str | Sequence[str],
        size: tuple[int, int] = (192, 256),
        like: ImageInput | Sequence[ImageInput] | None = None,
        strength: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Draw one image a caption.

        Args:
            captions: one text each; a single string is one caption.
            size: height and width; ignored where ``like`` is given.
            like: images to start from, one a caption and of one size, noised to ``strength`` (SDEdit, Meng et al.
                2022): what `image.as_images` takes, such as a tensor ``b 3 h w`` in [0, 1] or a list of PIL images.
            strength: in (0, 1]; 1 forgets ``like``.
            seed: image ``i`` depends on ``seed + i`` and its own inputs only, not on its neighbours.

        Returns:
            ``b 3 h w`` in [0, 1].

        Raises:
            ValueError: a strength outside (0, 1], another number of images than captions, or an image in another
                range than [0, 1].
            NonFiniteError: the network returned NaN or infinity; ``positions`` says for which captions.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength {strength} is not in (0, 1]")
        captions = [captions] if isinstance(captions, str) else list(captions)
        started = None if like is None else as_images(like)
        if started is not None and len(started) != len(captions):
            raise ValueError(f"{len(started)} images for {len(captions)} captions; give one caption an image")
        start = None if started is None else same_size(started)
        net, stride = self.backbone, self.backbone.stride
        h, w = size if start is None else (int(start.shape[-2]), int(start.shape[-1]))
        rows, columns = -(-h // stride), -(-w // stride)
        shape = (net.latent_channels, rows, columns)
        draws = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed + i))
            for i in range(len(captions))
        ]
        weights = next(net.parameters())
        x = torch.stack(draws).to(weights)
        times = self._times(strength if start is not None else 1.0)
        if start is not None and strength < 1:
            clean = net.encode((pad_to_multiple(start, stride)[0] * 2 - 1).to(weights))
            x, _, _ = net.schedule.noised(clean, x, torch.full((len(x),), times[0], device=x.device))
        text, empty = net.embed(captions, pad=True), net.embed([""] * len(captions), pad=True)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            said = net(x, t, text).prediction
            if self.guidance != 1:
                said = torch.lerp(net(x, t, empty).prediction, said, self.guidance)
            return to_x0(said, x, *net.schedule.scales_like(t, x), net.schedule.predicts)

        clean = sample(denoise, x, net.schedule, times, self.sampler)
        canvas = net.decode(clean)
        check_generated(clean, canvas, captions)
        return ((canvas.float().clamp(-1, 1) + 1) / 2)[..., :h, :w].cpu()

    def _times(self, strength: float) -> list[int]:
        """The time steps of the walk, from noisy to clean; the image it starts from is noised to the first."""
        schedule = self.backbone.schedule
        if self.sampler == "dpmpp_2m":
            return dpmpp_2m_timesteps(
                schedule, schedule.step_at(strength), max(1, round(self.steps * strength))
            )
        times = schedule.timesteps(self.steps)
        return times[round(self.steps * (1 - strength)) :] or times[-1:]


def check_generated(latents: Tensor, canvases: Tensor, names: Sequence[str]) -> None:
    """Check latents ``b z h w`` and the images ``b 3 h w`` decoded from them, before these are clamped to their range.

    A small autoencoder bounds latents by tanh, and a clamp bounds images: both turn infinity into ordinary numbers.

    Raises:
        NonFiniteError: names those that are NaN or infinite somewhere.
    """
    finite = finite_per_image(latents.to(canvases.device), canvases)
    if not bool(finite.all()):
        bad = tuple((~finite).nonzero()[:, 0].tolist())
        raise NonFiniteError(
            f"the generated image of {', '.join(repr(names[i]) for i in bad)} is NaN or infinite; use float32 "
            "(--dtype float32), and check that the checkpoint is not damaged",
            bad,
        )
