"""Training U-Net and text encoder: images under captions, and one-step perception, in any mixture.

The image task is what makes the model able to generate; perception tasks are told apart by their prompts. Both are
the same network reading the same latents, so either may come first, or both together (`Recipe.mix`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion
from ..data.folder import Folder
from ..diffusion import from_x0
from ..evaluate import score
from ..heads import LatentHead, LightHead
from ..predictor import Predictor
from ..protocol import OneStep
from ..tasks import TASKS
from .ahead import Ahead
from .examples import Batch, Cached, Examples
from .live import Live
from .pixels import generator, pick
from .recipe import IMAGE, Recipe

Logs = dict[str, float]


class Denoiser(nn.Module):
    """The parts that learn, as one module with their own names: networks, and heads by task."""

    def __init__(self, backbone: StableDiffusion, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.unet, self.text_encoder = backbone.unet, backbone.text_encoder
        self.heads = nn.ModuleDict(dict(heads))


def make_heads(
    backbone: StableDiffusion, recipe: Recipe, found: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """The heads a recipe trains: those of the model it starts from, or fresh ones."""
    tasks = sorted(k for k in recipe.mix if k != IMAGE)
    if recipe.head == "latent":
        return {t: LatentHead() for t in tasks}
    if recipe.image_weight <= 0:
        raise ValueError("a light head learns from pixels alone: the recipe needs image_weight > 0")
    channels = int(backbone.unet.config["block_out_channels"][0])
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        fresh = {t: LightHead(channels, backbone.stride, fine=16) for t in tasks}
    return {t: found.get(t, fresh[t]) for t in tasks}


class DenoiserStage:
    """Losses and scores of the denoiser; see `loop.Stage`."""

    def __init__(
        self,
        backbone: StableDiffusion,
        recipe: Recipe,
        cache: Path,
        heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.backbone, self.recipe = backbone, recipe
        self.heads = make_heads(backbone, recipe, heads or {})
        self.module: nn.Module = Denoiser(backbone, self.heads)
        self.module.requires_grad_(True)
        backbone.vae.requires_grad_(False)
        self.tasks = tuple(sorted(k for k in recipe.mix if k != IMAGE))
        self.examples: Examples = (
            Live(backbone, recipe, self.tasks)
            if recipe.augment
            else Cached(backbone, recipe, self.tasks, cache)
        )
        self.kinds = list(recipe.mix)
        self.ahead = Ahead(self.draw)
        self.protocol = OneStep(timestep=recipe.timestep)
        self.validation = None if recipe.validation is None else Folder(recipe.validation)

    def loss(self, step: int) -> tuple[Tensor, Logs]:
        """Sum over the kinds in this batch, each weighted by its number of examples."""
        total, logs = torch.zeros(()), {}
        for kind, count, given, rng in self.ahead(step):
            loss = self.image_loss(given, rng) if kind == IMAGE else self.perception_loss(kind, given, rng)
            logs[kind] = loss.item()
            total = total + loss * count / self.recipe.batch
        return total, logs

    def draw(self, step: int) -> list[tuple[str, int, Any, torch.Generator]]:
        """What step ``step`` is taught with, by kind: how many, the examples, and the randomness left for noise."""
        shares = list(self.recipe.mix.values())
        drawn = pick(generator(self.recipe.seed, "denoiser", step), shares, self.recipe.batch)
        out = []
        for k, kind in enumerate(self.kinds):
            count, rng = drawn.count(k), generator(self.recipe.seed, "denoiser", step, kind)
            if not count:
                continue
            given = (
                self.examples.images(rng, count)
                if kind == IMAGE
                else self.examples.labelled(kind, rng, count)
            )
            out.append((kind, count, given, rng))
        return out

    def image_loss(self, given: tuple[Tensor, list[str]], rng: torch.Generator) -> Tensor:
        """Squared error of the prediction at uniformly random times, under captions (Salimans & Ho 2022)."""
        (x0, captions), count = given, len(given[1])
        schedule = self.backbone.schedule
        t = torch.randint(schedule.steps, (count,), generator=rng)
        noise = torch.randn(x0.shape, generator=rng)
        x, alpha, sigma = schedule.noised(x0, noise, t)
        said = self.backbone(x, t, self.backbone.embed(captions, pad=True)).prediction
        return F.mse_loss(said, from_x0(x0, noise, alpha, sigma, schedule.predicts))

    def perception_loss(self, name: str, batch: Batch, rng: torch.Generator) -> Tensor:
        """One-step perception: masked latent error, plus the task's own loss on the painted canvas."""
        task, recipe = TASKS[name], self.recipe
        target = batch.image if batch.target is None else batch.target
        query = self.protocol.prepare(batch.image, target, rng, self.backbone.schedule)
        text = self.backbone.embed([task.prompt] * len(batch.image))
        said = self.backbone(query.x, query.t, text, features=recipe.head == "light")
        x0 = query.read(said.prediction)
        loss = torch.zeros(())
        if recipe.latent_weight and batch.target is not None and batch.mask is not None:
            keep = batch.mask.expand_as(x0)
            error = ((x0 - batch.target).square() * keep).sum() / keep.sum().clamp(min=1)
            loss = loss + recipe.latent_weight * error
        if recipe.image_weight:
            assert batch.canvas is not None and batch.known is not None
            painted = self.heads[name](x0, said.features, self.backbone)
            loss = loss + recipe.image_weight * task.loss(painted, batch.canvas, batch.known)
        return loss

    @torch.no_grad()
    def validate(self) -> Logs:
        """The tasks' metrics on held-out samples, and the denoising loss on their images at fixed noise."""
        if self.validation is None:
            return {}
        count = min(self.recipe.validate_count, len(self.validation))
        samples = [self.validation[i] for i in range(count)]
        scores: Logs = {}
        for name in self.tasks:
            size = max(self.recipe.size)
            predictor = Predictor(self.backbone, TASKS[name], self.protocol, self.heads[name], size=size)
            scores.update(score(predictor, samples))
        return scores

    def finish(self) -> None:
        """Nothing is left to measure."""
