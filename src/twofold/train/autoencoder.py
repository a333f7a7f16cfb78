"""Training stage of the autoencoder, on images and encoded targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from tqdm import tqdm

from ..backbones.stable_diffusion import StableDiffusion
from ..data.folder import Folder
from ..image import pad_to_multiple
from ..tasks import get_task
from ..visualization import sheet
from .config import IMAGE
from .distributed import DistributedContext
from .pixels import ImagePool, draw_indices, random_crop
from .recipe import Recipe
from .sampler import generator
from .step import Loss

Logs = dict[str, float]


NUM_PREVIEWS = 4  # images


class AutoencoderStage:
    """Reconstruction losses: L1 of pixels and of differences of neighbours, squared error of each cell's mean colour.

    A small autoencoder loses sharpness and colour first, which the last two penalise. `whiteness` normalises latents.
    """

    def __init__(self, backbone: StableDiffusion, recipe: Recipe, distributed: DistributedContext) -> None:
        if distributed.size > 1 or recipe.loop.micro_batch_size or recipe.loop.precision != "fp32":
            raise ValueError(
                "the autoencoder is trained by one process, without micro-batches and in fp32: its loss depends on "
                "statistics of the batch's latents"
            )
        if not isinstance(backbone.vae, AutoencoderTiny):
            raise ValueError(
                "the autoencoder stage trains AutoencoderTiny; full-size autoencoders stay frozen"
            )
        self.backbone, self.recipe = backbone, recipe
        self.vae, self.stride = backbone.vae, backbone.stride
        self.device, self.teacher = distributed.device, None
        self.module: nn.Module = backbone.vae.requires_grad_(True).to(distributed.device)
        self.images = ImagePool(recipe.data.sources, recipe.data.size)
        self.encoded = _encoded_targets(recipe)
        kinds = [k for k in recipe.data.task_weights if k == IMAGE or self.encoded.get(k)]
        self.kinds, self.shares = kinds, [recipe.data.task_weights[k] for k in kinds]
        self.held_out = _held_out(recipe)

    def draw(self, step: int) -> list[int]:
        """The step's number; `loss` draws the batch."""
        return [step]

    def close(self) -> None:
        """Nothing is open."""

    def loss(self, examples: Sequence[int]) -> Loss:
        """The loss of one batch, which is a function of the recipe's seed and the step."""
        (step,) = examples
        rng = generator(self.recipe.loop.seed, "autoencoder", step)
        kinds = draw_indices(rng, self.shares, self.recipe.loop.batch_size)
        parts = [self._draw(name, kinds.count(k), rng) for k, name in enumerate(self.kinds) if k in kinds]
        batch = torch.cat(parts).to(self.device).contiguous(memory_format=torch.channels_last)
        latent = self.vae.encode(batch).latents
        noise = torch.randn(latent.shape, generator=rng).to(latent)
        back = self.vae.decode(latent + 0.02 * noise).sample
        pixel = F.l1_loss(back, batch)
        edges = sum(F.l1_loss(back.diff(dim=d), batch.diff(dim=d)) for d in (-1, -2))
        # Squared: a colour that is lost has to cost more than many small errors.
        cells = F.mse_loss(F.avg_pool2d(back, self.stride), F.avg_pool2d(batch, self.stride))
        spread = whiteness(latent)
        loss = Loss(self.device, 1)
        terms = {"pixel": (1.0, pixel), "edges": (1.0, edges), "cells": (8.0, cells), "spread": (0.3, spread)}
        loss.add(
            "codec", [f"batch {step}"], {k: (w, torch.as_tensor(v)[None]) for k, (w, v) in terms.items()}
        )
        return loss

    def _draw(self, kind: str, count: int, rng: torch.Generator) -> Tensor:
        """Random crops ``count 3 h w`` of images, or of encoded targets."""
        if kind == IMAGE:
            return self.images.batch(rng, count)
        pool = self.encoded[kind]
        indices = torch.randint(len(pool), (count,), generator=rng).tolist()
        return torch.stack([random_crop(pool[i], self.recipe.data.size, rng) for i in indices])

    @torch.no_grad()
    def validate(self) -> Logs:
        """PSNR in dB on held-out images, mean over images; 0 dB is an error of the whole range."""
        if not self.held_out:
            return {}
        scores = []
        for image in self.held_out:
            canvas = (image[None].float() / 127.5 - 1)[
                ..., : image.shape[-2] // 8 * 8, : image.shape[-1] // 8 * 8
            ]
            canvas = canvas.to(self.device)
            back = self.vae.decode(self.vae.encode(canvas).latents).sample.clamp(-1, 1)
            scores.append(-10 * torch.log10((back - canvas).square().mean() / 4))
        return {"psnr": torch.stack(scores).mean().item()}

    @torch.no_grad()
    def preview(self) -> Tensor | None:
        """A contact sheet of held-out images and their reconstructions."""
        cells = []
        for image in self.held_out[:NUM_PREVIEWS]:
            padded, (h, w) = pad_to_multiple(image.float() / 127.5 - 1, self.stride)
            latent = self.vae.encode(padded[None].to(self.device)).latents
            decoded = self.vae.decode(latent).sample[0, :, :h, :w].cpu()
            cells += [image / 255, (decoded + 1) / 2]
        return sheet(cells, 2, ["image", "decoded"]) if cells else None

    def finish(self) -> None:
        """Measure the latents' standard deviation and set the scaling factor to its inverse."""
        rng = generator(self.recipe.loop.seed, "scale")
        latent = self.vae.encode(self.images.batch(rng, 256).to(self.device)).latents
        self.backbone.vae.register_to_config(scaling_factor=round(1 / latent.std().item(), 5))


def whiteness(latent: Tensor) -> Tensor:
    """Mean square deviation of the channels of ``b z h w`` from zero mean, unit variance and no correlation.

    The denoiser needs latents of about the noise's scale, and correlated channels carry less information: without this
    term a small autoencoder of four channels loses colours.
    """
    flat = latent.transpose(0, 1).flatten(1)
    mean = flat.mean(1, keepdim=True)
    covariance = (flat - mean) @ (flat - mean).T / flat.shape[1]
    return mean.square().mean() + (covariance - torch.eye(len(flat)).to(covariance)).square().mean()


def _encoded_targets(recipe: Recipe) -> dict[str, list[Tensor]]:
    """The encoded targets of the recipe's tasks, as uint8 ``3 H W``, from every source that has them."""
    encoded: dict[str, list[Tensor]] = {}
    for name in [k for k in recipe.data.task_weights if k != IMAGE]:
        pool: list[Tensor] = []
        for source in recipe.data.sources:
            task = get_task(name)
            folder = Folder(source.path, targets=(task.target,), override=source.override)
            if task.target not in (folder.header.get("targets") or {}):
                continue
            for i in tqdm(source.indices(len(folder)), desc=f"encoding {name}", disable=None):
                sample = folder[i]
                target, valid = sample.targets[task.target], sample.valid[task.target]
                image, _ = task.encode(target[None], valid[None])
                pool.append(((image[0] + 1) * 127.5).round().to(torch.uint8))
        encoded[name] = pool
    return encoded


def _held_out(recipe: Recipe) -> list[Tensor]:
    if recipe.validation.data is None:
        return []
    folder = Folder(recipe.validation.data, targets=())
    count = min(recipe.validation.num_samples, len(folder))
    return [(folder[i].image * 255).round().to(torch.uint8) for i in range(count)]
