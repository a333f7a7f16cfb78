"""Training U-Net and text encoder: images under captions, and one-step perception, in any mixture.

The image task is what makes the model able to generate; perception tasks are told apart by their prompts. Both are
the same network reading the same latents, so either may come first, or both together (`Recipe.mix`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.stable_diffusion import StableDiffusion
from ..data.folder import Folder
from ..diffusion import from_x0, to_x0
from ..evaluate import score
from ..heads import LatentHead, LightHead
from ..predictor import Predictor
from ..protocol import OneStep
from ..tasks import TASKS
from .latents import Latents, encode_folder
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
        fresh = {t: LightHead(channels, backbone.stride) for t in tasks}
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
        pixels = recipe.image_weight > 0
        self.folders = [
            encode_folder(backbone, s, recipe.size, self.tasks, pixels, cache) for s in recipe.sources
        ]
        self.pools = {t: self._pool(t) for t in self.tasks}
        self.kinds = list(recipe.mix)
        self.protocol = OneStep(timestep=recipe.timestep)
        self.crop = (recipe.size[0] // backbone.stride, recipe.size[1] // backbone.stride)
        self.validation = None if recipe.validation is None else Folder(recipe.validation)

    def _pool(self, task: str) -> list[tuple[int, int]]:
        """(folder, sample) pairs with the task's label, thinned to the first ``recipe.labels``."""
        pairs = [
            (f, i)
            for f, folder in enumerate(self.folders)
            for i in folder.labelled(task)
            if self._fits(folder, i)
        ]
        if not pairs:
            raise ValueError(f"no source has a {task} target as large as size={self.recipe.size}")
        return pairs[: self.recipe.labels or None]

    def _fits(self, folder: Latents, i: int) -> bool:
        h, w = folder.images[i].shape[-2:]
        stride = self.backbone.stride
        return h * stride >= self.recipe.size[0] and w * stride >= self.recipe.size[1]

    def loss(self, step: int) -> tuple[Tensor, Logs]:
        """Sum over the kinds in this batch, each weighted by its number of examples."""
        rng = generator(self.recipe.seed, "denoiser", step)
        drawn = pick(rng, list(self.recipe.mix.values()), self.recipe.batch)
        total, logs = torch.zeros(()), {}
        for k, kind in enumerate(self.kinds):
            count = drawn.count(k)
            if not count:
                continue
            loss = self.image_loss(rng, count) if kind == IMAGE else self.perception_loss(kind, rng, count)
            logs[kind] = loss.item()
            total = total + loss * count / self.recipe.batch
        return total, logs

    def image_loss(self, rng: torch.Generator, count: int) -> Tensor:
        """Squared error of the prediction at uniformly random times, under captions (Salimans & Ho 2022)."""
        x0, captions = self._images(rng, count)
        schedule = self.backbone.schedule
        t = torch.randint(schedule.steps, (count,), generator=rng)
        noise = torch.randn(x0.shape, generator=rng)
        x, alpha, sigma = schedule.noised(x0, noise, t)
        said = self.backbone(x, t, self.backbone.embed(captions, pad=True)).prediction
        return F.mse_loss(said, from_x0(x0, noise, alpha, sigma, schedule.predicts))

    def _images(self, rng: torch.Generator, count: int) -> tuple[Tensor, list[str]]:
        latents, captions = [], []
        for f in pick(rng, [s.share for s in self.recipe.sources], count):
            folder = self.folders[f]
            i = int(torch.randint(len(folder.images), (), generator=rng))
            side = int(torch.randint(2, (), generator=rng))
            latents.append(random_window(folder.images[i][side].float(), self._window(folder.images), rng))
            dropped = bool(torch.rand((), generator=rng) < self.recipe.drop_caption)
            captions.append("" if dropped else folder.captions[i])
        smallest = tuple(min(x.shape[d] for x in latents) for d in (-2, -1))
        return torch.stack([x[:, : smallest[0], : smallest[1]] for x in latents]), captions

    def _window(self, images: list[Tensor]) -> tuple[int, int]:
        """Image training uses square windows: photographs come in both orientations."""
        side = min(self.crop)
        return side, side

    def perception_loss(self, name: str, rng: torch.Generator, count: int) -> Tensor:
        """One-step perception: masked latent error, plus the task's own loss on the decoded canvas."""
        task, pool, stride = TASKS[name], self.pools[name], self.backbone.stride
        rows = []
        for _ in range(count):
            f, i = pool[int(torch.randint(len(pool), (), generator=rng))]
            side = int(torch.randint(2, (), generator=rng))
            rows.append(self._windowed(self.folders[f], name, i, side, rng))
        image, target, mask = (torch.stack(x) for x in zip(*(r[:3] for r in rows), strict=True))
        query = self.protocol.prepare(image, target, rng)
        text = self.backbone.embed([task.prompt] * count)
        light = self.recipe.head == "light"
        said = self.backbone(query.x, query.t, text, features=light)
        x0 = to_x0(said.prediction, query.x, query.alpha, query.sigma, self.backbone.schedule.predicts)
        keep = mask.expand_as(x0)
        loss = self.recipe.latent_weight * ((x0 - target).square() * keep).sum() / keep.sum().clamp(min=1)
        if self.recipe.image_weight > 0:
            canvases = torch.stack([r[3][0] for r in rows])
            known = torch.stack([r[3][1] for r in rows])
            assert canvases.shape[-1] == x0.shape[-1] * stride
            painted = self.heads[name](x0, said.features, self.backbone)
            loss = loss + self.recipe.image_weight * task.loss(painted, canvases, known)
        return loss

    def _windowed(self, folder: Latents, task: str, i: int, side: int, rng: torch.Generator) -> tuple:
        """Image, target and mask latents of one sample in one window, and the canvas with its mask."""
        target, mask = folder.targets[task][i], folder.masks[task][i]
        assert target is not None and mask is not None
        image = folder.images[i][side].float()
        top, left = window_corner(image, self.crop, rng)
        h, w = self.crop

        def cut(x: Tensor, scale: int = 1) -> Tensor:
            return x[..., top * scale : (top + h) * scale, left * scale : (left + w) * scale]

        canvas, known = folder.canvases[task][i], folder.known[task][i]
        pixels = None
        if canvas is not None and known is not None:
            painted = canvas.float() / 127.5 - 1
            if side:
                painted, known = TASKS[task].flip(painted), known.flip(-1)
            pixels = cut(painted, self.backbone.stride), cut(known, self.backbone.stride)
        return cut(image), cut(target[side].float()), cut(mask[side]), pixels

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


def window_corner(x: Tensor, window: tuple[int, int], rng: torch.Generator) -> tuple[int, int]:
    """Top and left of a random window of at most ``window`` inside ``c h w``."""
    top = int(torch.randint(max(1, x.shape[-2] - window[0] + 1), (), generator=rng))
    left = int(torch.randint(max(1, x.shape[-1] - window[1] + 1), (), generator=rng))
    return top, left


def random_window(x: Tensor, window: tuple[int, int], rng: torch.Generator) -> Tensor:
    """A random window of ``c h w``."""
    top, left = window_corner(x, window, rng)
    return x[..., top : top + window[0], left : left + window[1]]
