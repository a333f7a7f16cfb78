"""Text-to-image and image-to-image generation with the diffusion model that also predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..backbones.backbone import Backbone
from ..diffusion import Rngs, Sampler, dpmpp_2m_timesteps, guided, randn_tensor, sample, to_x0
from ..image import ImageInput, as_images, pad_to_multiple, same_size
from ..predict.base import describe_network
from ..predict.finite import NonFiniteError, finite_per_image
from .sampling import SamplingPlan


@dataclass(frozen=True)
class DenoisedLatents:
    """Latents after sampling, and what the network returned at the last denoising step.

    Attributes:
        latents: ``b z h w`` after the last step.
        x0: ``b z h w``, the clean latents predicted at the last step.
        features: of the last step under the captions, by the requested kind.
    """

    latents: Tensor
    x0: Tensor
    features: Mapping[Any, Any]


@dataclass(frozen=True)
class ImageGenerator:
    """A backbone and how to sample from it.

    Attributes:
        backbone: the networks.
        steps: denoising steps from pure noise; a partially noised image takes ``steps * strength`` of them.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); 1 is none.
        sampler: ``ddim``; ``dpmpp_2m`` (DPM-Solver++, Lu et al. 2022), which needs a third of the steps; ``euler``; or
            ``lcm``, for distilled networks.
    """

    backbone: Backbone
    steps: int = 40
    guidance: float = 3.0
    sampler: Sampler = "ddim"

    def __repr__(self) -> str:
        return (
            f"ImageGenerator(steps={self.steps}, guidance={self.guidance:g}, sampler={self.sampler!r}, "
            f"{describe_network(self.backbone)})"
        )

    @torch.no_grad()
    def __call__(
        self,
        captions: str | Sequence[str],
        size: tuple[int, int] = (192, 256),
        image: ImageInput | Sequence[ImageInput] | None = None,
        strength: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Generate one image for each caption.

        Args:
            captions: one text each; a single string is one caption.
            size: height and width; ignored where ``image`` is given.
            image: images to start from, one for each caption and all of one size, noised to ``strength`` (SDEdit, Meng
                et al. 2022): what `image.as_images` takes, such as a tensor ``b 3 h w`` in [0, 1] or a list of PIL
                images.
            strength: in (0, 1]; at 1 the result does not depend on ``image``.
            seed: image ``i`` depends on ``seed + i`` and its own inputs only, not on the other images of the batch.

        Returns:
            ``b 3 h w`` in [0, 1].

        Raises:
            ValueError: a strength outside (0, 1], another number of images than captions, or an image in another
                range than [0, 1].
            NonFiniteError: the network returned NaN or infinity; ``positions`` lists the captions concerned.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength {strength} is not in (0, 1]")
        captions = [captions] if isinstance(captions, str) else list(captions)
        images = None if image is None else as_images(image)
        if images is not None and len(images) != len(captions):
            raise ValueError(f"{len(images)} images for {len(captions)} captions; pass one image for each")
        start = None if images is None else same_size(images)
        net = self.backbone
        h, w = size if start is None else (int(start.shape[-2]), int(start.shape[-1]))
        shape = (len(captions), net.latent_channels, -(-h // net.stride), -(-w // net.stride))
        rngs = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        latents = randn_tensor(shape, rngs, next(net.parameters()))
        plan = self.plan(1.0 if start is None else strength)
        if start is not None and strength < 1:
            latents = self.add_noise(self.encode(start), latents, plan)
        latents = self.denoise(latents, captions, plan, rngs).latents
        return self.decode(latents, (h, w), captions)

    def plan(self, strength: float) -> SamplingPlan:
        """The time steps from noisy to clean; a start image is noised to the first."""
        schedule = self.backbone.schedule
        if self.sampler == "dpmpp_2m":
            start, count = schedule.step_at(strength), max(1, round(self.steps * strength))
            timesteps = dpmpp_2m_timesteps(schedule, start, count)
        else:
            timesteps = schedule.timesteps(self.steps)
            timesteps = timesteps[round(self.steps * (1 - strength)) :] or timesteps[-1:]
        return SamplingPlan(timesteps[0], tuple(timesteps), None)

    def encode(self, images: Tensor, rngs: Rngs | None = None) -> Tensor:
        """Latents ``b z h w`` of images ``b 3 h w`` in [0, 1], padded to a multiple of the stride.

        With ``rngs`` they are drawn from the autoencoder's posterior; otherwise they are its mean.
        """
        padded, _ = pad_to_multiple(images, self.backbone.stride)
        return self.backbone.encode((padded * 2 - 1).to(next(self.backbone.parameters())), rngs)

    def add_noise(self, latents: Tensor, noise: Tensor, plan: SamplingPlan) -> Tensor:
        """Latents ``b z h w`` noised to the first time step of a plan."""
        start = torch.full((len(latents),), plan.start, device=latents.device)
        return self.backbone.schedule.add_noise(latents, noise, start)[0]

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        captions: Sequence[str],
        plan: SamplingPlan,
        rngs: Rngs | None = None,
        features: Sequence[Any] = (),
    ) -> DenoisedLatents:
        """Denoise latents ``b z h w`` from ``plan.start`` under captions.

        Args:
            latents: noised to ``plan.start``.
            captions: one for each.
            plan: time steps, and where the last one leads to.
            rngs: of the noise that ``lcm`` adds between steps.
            features: kinds of features to return of the last step, as `Backbone.forward` takes them.
        """
        net, schedule, last = self.backbone, self.backbone.schedule, plan.timesteps[-1]
        prompt = net.embed(captions, pad=True)
        empty = prompt if self.guidance == 1 else net.embed([""] * len(captions), pad=True)
        collected: dict[Any, Any] = {}
        x0 = latents

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            if not features or not bool((t == last).all()):
                return net(x, t, prompt).prediction
            outputs = {kind: net(x, t, prompt, features=kind) for kind in features}
            collected.update({kind: output.features for kind, output in outputs.items()})
            return outputs[features[0]].prediction

        def unconditional(x: Tensor, t: Tensor) -> Tensor:
            return net(x, t, empty).prediction

        predict = guided(conditional, unconditional, self.guidance)

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            nonlocal x0
            x0 = to_x0(predict(x, t), x, *schedule.scales_like(t, x), schedule.prediction_type)
            return x0

        scales = None if plan.end is None else schedule.scales_after(plan.timesteps, plan.end)
        result = sample(predict_x0, latents, schedule, plan.timesteps, self.sampler, scales=scales, rngs=rngs)
        return DenoisedLatents(result, x0, collected)

    def decode(self, latents: Tensor, size: tuple[int, int], names: Sequence[str]) -> Tensor:
        """Images ``b 3 h w`` in [0, 1] of latents, cropped to ``size``, on the CPU.

        Raises:
            NonFiniteError: an image is NaN or infinite somewhere; the message has its entry of ``names``.
        """
        images = self.backbone.decode(latents)
        check_generated(latents, images, names)
        return ((images.float().clamp(-1, 1) + 1) / 2)[..., : size[0], : size[1]].cpu()


def check_generated(latents: Tensor, images: Tensor, names: Sequence[str]) -> None:
    """Check latents ``b z h w`` and the images ``b 3 h w`` decoded from them, before these are clamped to their range.

    A small autoencoder bounds latents by tanh, and a clamp bounds images: both turn infinity into ordinary numbers.

    Raises:
        NonFiniteError: names those that are NaN or infinite somewhere.
    """
    finite = finite_per_image(latents.to(images.device), images)
    if not bool(finite.all()):
        bad = tuple((~finite).nonzero()[:, 0].tolist())
        raise NonFiniteError(
            f"the generated image of {', '.join(repr(names[i]) for i in bad)} is NaN or infinite; use float32 "
            "(--dtype float32), and check that the checkpoint is not damaged",
            bad,
        )
