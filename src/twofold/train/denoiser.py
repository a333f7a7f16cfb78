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
from ..heads import make_head
from ..predictor import Predictor
from ..tasks import Task, get_task
from .ahead import Ahead
from .examples import Batch, Cached, Examples
from .live import Live
from .pixels import generator, pick
from .preview import preview
from .recipe import IMAGE, Recipe

Logs = dict[str, float]
PREVIEWED = 4  # pictures


class Denoiser(nn.Module):
    """The parts that may learn, as one module with their own names; which do, their parameters say."""

    def __init__(self, backbone: StableDiffusion, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.unet, self.vae = backbone.unet, backbone.vae
        self.text_encoder = backbone.text_encoder
        self.heads = nn.ModuleDict({_key(t): h for t, h in heads.items()})


def _key(task: str) -> str:
    """A task of somebody's own is called ``package.module:object``; torch does not like dots."""
    return task.replace(".", "-")


def painted(name: str) -> Task:
    """The task called ``name``, which must be painted as a picture: logits and heatmaps are not trained yet.

    Raises:
        ValueError: it is not.
    """
    task = get_task(name)
    if task.outputs not in (1, 3):
        raise ValueError(
            f"{task.name} is {task.outputs} numbers a pixel, not a picture; such tasks cannot be trained yet"
        )
    return task


def make_heads(
    backbone: StableDiffusion, recipe: Recipe, found: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """The heads a recipe trains: those of the model it starts from where they are of its kind, or fresh ones."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        fresh = {t: make_head(recipe.head, backbone, painted(t).outputs) for t in recipe.tasks}
    return {t: found[t] if isinstance(found.get(t), type(h)) else h for t, h in fresh.items()}


def set_learning(backbone: StableDiffusion, heads: Mapping[str, nn.Module], recipe: Recipe) -> None:
    """Say of every parameter whether it learns; low-rank additions are made here."""
    backbone.requires_grad_(False)
    if recipe.unet == "full":
        backbone.unet.requires_grad_(True)
    elif recipe.unet == "lora":
        add_lora(backbone, recipe)
    if backbone.text_encoder is not None:
        backbone.text_encoder.requires_grad_(recipe.text == "full")
    if recipe.decoder == "full":
        backbone.vae.decoder.requires_grad_(True)
        post = getattr(backbone.vae, "post_quant_conv", None)
        if post is not None:
            post.requires_grad_(True)
    for head in heads.values():
        head.requires_grad_(True)


def add_lora(backbone: StableDiffusion, recipe: Recipe) -> None:
    """Low-rank additions to queries, keys, values and outputs of every attention (Hu et al. 2022)."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        config = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.rank, init_lora_weights="gaussian", target_modules=targets
        )
        backbone.unet.add_adapter(config)


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
        set_learning(backbone, self.heads, recipe)
        self.module: nn.Module = Denoiser(backbone, self.heads)
        self.tasks = recipe.tasks
        self.examples: Examples = (
            Live(backbone, recipe, self.tasks)
            if recipe.augment
            else Cached(backbone, recipe, self.tasks, cache)
        )
        self.kinds = list(recipe.mix)
        self.ahead = Ahead(self.draw)
        self.protocol = recipe.protocol
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
        """Masked squared error of what the network says, plus the task's own losses on the painted canvas."""
        task, recipe = get_task(name), self.recipe
        target = batch.image if batch.target is None else batch.target
        query = self.protocol.prepare(batch.image, target, rng, self.backbone.schedule)
        text = self.backbone.embed([task.prompt]).expand(len(batch.image), -1, -1)
        taps = bool(getattr(self.heads[name], "reads_features", True))
        said = self.backbone(query.x, query.t, text, taps, self._labels(len(batch.image)))
        loss = torch.zeros(())
        if recipe.latent_weight and batch.target is not None and batch.mask is not None:
            keep = batch.mask.expand_as(said.prediction)
            error = torch.where(keep, said.prediction - query.wanted(batch.target), 0).square()
            loss = loss + recipe.latent_weight * error.sum() / keep.sum().clamp(min=1)
        if recipe.image_weight:
            assert batch.canvas is not None and batch.known is not None
            painted = self.heads[name](query.read(said.prediction), said.features, self.backbone)
            weights = recipe.losses.get(name)
            loss = loss + recipe.image_weight * task.loss(painted, batch.canvas, batch.known, weights)
        return loss

    def _labels(self, count: int) -> Tensor | None:
        if self.protocol.class_labels is None:
            return None
        return torch.tensor(self.protocol.class_labels).expand(count, -1)

    @torch.no_grad()
    def validate(self) -> Logs:
        """The tasks' metrics on held-out samples."""
        if self.validation is None:
            return {}
        count = min(self.recipe.validate_count, len(self.validation))
        samples = [self.validation[i] for i in range(count)]
        scores: Logs = {}
        for predictor in self._predictors().values():
            scores.update(score(predictor, samples))
        return scores

    def preview(self) -> Tensor | None:
        """Truth, answer and error on the first held-out samples."""
        if self.validation is None or not self.tasks:
            return None
        samples = [self.validation[i] for i in range(min(PREVIEWED, len(self.validation)))]
        able = {
            t: p for t, p in self._predictors().items() if any(p.task.target in s.targets for s in samples)
        }
        return preview(able, samples) if able else None

    def _predictors(self) -> dict[str, Predictor]:
        size = max(self.recipe.size)
        return {
            t: Predictor(self.backbone, get_task(t), self.protocol, self.heads[t], size=size)
            for t in self.tasks
        }

    def finish(self) -> None:
        """Merge what was added beside the weights into them."""
        if self.recipe.unet == "lora":
            self.backbone.unet.fuse_lora()
            self.backbone.unet.unload_lora()
