"""Training the denoising network: images under captions, and perception in any protocol, in any mixture.

The image task is what makes the model able to generate; perception tasks are told apart by their prompts. Both are
the same network reading the same latents, so either may come first, or both together (`Recipe.mix`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.image_encoder import ImageFeatures
from ..backbones.stable_diffusion import StableDiffusion
from ..diffusion import from_x0
from ..finite import check_finite
from ..heads import text_of
from ..predictor import Predictor, Reading
from ..protocol import joined
from .encoder import Encoder
from .examples import Example
from .learn import (
    Denoiser,
    check_map_width,
    make_heads,
    make_tasks,
    set_learning,
    settle,
    uses_image_features,
)
from .order import generator
from .perception import PerceptionStage, look_at_pictures, told
from .recipe import IMAGE, Recipe
from .step import Loss, Terms
from .store import LATENTS
from .team import Team


class DenoiserStage(PerceptionStage):
    """Losses and scores of the denoiser; see `loop.Stage`.

    A loss is computed for each example by itself and averaged over examples, so how a batch is split over
    micro-batches and processes does not matter.
    """

    def __init__(
        self,
        backbone: StableDiffusion,
        recipe: Recipe,
        run: Path,
        heads: Mapping[str, nn.Module],
        team: Team,
    ) -> None:
        self.backbone = backbone
        tasks = make_tasks(recipe)
        self.heads = make_heads(backbone, recipe, heads, tasks)
        set_learning(backbone, self.heads, recipe)
        check_map_width(backbone, recipe, team.device)
        self.module = Denoiser(backbone, self.heads).to(team.device)
        if recipe.augment:
            backbone.vae.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU
        self.uses_image_features = uses_image_features(backbone, recipe)
        looks = look_at_pictures(recipe, tasks) or self.uses_image_features
        encoder = Encoder(backbone, tasks, recipe.latent_weight > 0, recipe.image_weight > 0, looks)
        super().__init__(recipe, run, team, tasks, encoder, run.parent / LATENTS if recipe.cache else None)
        self.said: dict[str, Tensor] = {}  # embedded prompts, where they stay as they are

    def loss(self, examples: Sequence[Example]) -> Loss:
        """The examples' part of their batch's loss."""
        groups: dict[tuple, list[Example]] = {}
        for example in examples:
            groups.setdefault((example.kind, example.shape), []).append(example)
        loss = Loss(self.team.device, self.recipe.batch)
        if not self.shares_looks:
            # All of them before the student's first: the teacher takes the place of weights that are still needed then.
            groups = {k: self._answered(k[0], g) for k, g in groups.items()}
        for (kind, _), group in groups.items():
            with self.team.precision(self.recipe.precision):
                terms = self.image_terms(group) if kind == IMAGE else self.perception_terms(kind, group)
            loss.add(kind, [e.name for e in group], terms)
        return loss

    def image_terms(self, examples: Sequence[Example]) -> Terms:
        """Squared error of the prediction at uniformly random times, under captions (Salimans & Ho 2022)."""
        schedule, device = self.backbone.schedule, self.team.device
        x0 = torch.stack([e.image for e in examples])
        t = torch.cat([torch.randint(schedule.steps, (1,), generator=e.rng) for e in examples])
        noise = torch.stack([torch.randn(e.shape, generator=e.rng) for e in examples])
        x, alpha, sigma = schedule.noised(x0, noise, t)
        wanted = from_x0(x0, noise, alpha, sigma, schedule.predicts).to(device)
        text = self.backbone.embed([e.caption for e in examples], pad=True)
        said = self.backbone(x.to(device), t.to(device), text).prediction.float()
        return {"noise": (1.0, (said - wanted).square().flatten(1).mean(1))}

    def perception_terms(self, name: str, examples: Sequence[Example]) -> Terms:
        """Masked squared error of what the network says, and the task's own losses on what the head paints."""
        recipe, device = self.recipe, self.team.device
        query = joined([self._query(e) for e in examples])
        head = self.heads[name]
        taps = getattr(head, "reads_features", True)
        text = text_of(head, lambda: self._prompted(name)).expand(len(examples), -1, -1)
        maps = self._image_features(examples)
        said = self.backbone(query.x, query.t, text, taps, self._labels(len(examples)), maps)
        if not taps:  # the decoder may bound an infinite latent
            check_finite(
                said.prediction, f"the network's {name} output for {', '.join(e.name for e in examples)}"
            )
        shown = query.read(said.prediction), said.features, self.backbone
        if self.shares_looks and any(e.taught for e in examples):
            painted = self._teacher().answer(head, shown)
            examples = self._relabelled(
                name, examples, [p for p, e in zip(painted, examples, strict=True) if e.taught]
            )
        terms: Terms = {}
        if recipe.latent_weight:
            target, mask = (
                torch.stack([getattr(e, k).to(device) for e in examples]) for k in ("target", "mask")
            )
            keep = mask.expand_as(target)
            error = torch.where(keep, said.prediction.float() - query.wanted(target), 0).square().flatten(1)
            terms["latent"] = (recipe.latent_weight, error.sum(1) / keep.flatten(1).sum(1).clamp(min=1))
        if recipe.image_weight:
            if hasattr(head, "loss") and name not in recipe.losses:
                return terms | self._own_terms(head, shown, examples)
            terms |= self._painted_terms(name, head(*shown).float(), examples)
        return terms

    @property
    def shares_looks(self) -> bool:
        """Whether teacher and student see the same features, so that one look serves both: only heads learn."""
        recipe, how = self.recipe, self.recipe.protocol
        steady = how.kind == "one_step" and not how.random and how.taught == "same"
        return (
            steady
            and recipe.unet == "frozen"
            and recipe.text == "frozen"
            and not (self.uses_image_features and recipe.encoder == "full")
            and not recipe.latent_weight
        )

    def _answered(self, name: str, examples: list[Example]) -> list[Example]:
        """The examples with the teacher's answers, reached as they are in use, in place of what was stored."""
        asked = [e for e in examples if e.taught]
        if not asked:
            return examples
        image = torch.stack([e.image for e in asked]).to(self.team.device)
        # Noise of its own: what the student is shown must not depend on who says what is to be learned.
        rngs = [generator(self.recipe.seed, "teacher", e.rng.initial_seed()) for e in asked]
        predictor = self._predictors()[name]
        with self._teacher().teaching():
            look = partial(predictor.look, image_features=self._image_features(asked))
            answer = self.recipe.protocol.solve(look, image, rngs, self.backbone.schedule)
            painted = (
                self.heads[name](answer.x0, answer.features, self.backbone)
                if self.recipe.image_weight
                else ()
            )
        return self._relabelled(name, examples, painted, answer.x0)

    def _own_terms(self, head: Any, shown: tuple[Any, ...], examples: Sequence[Example]) -> Terms:
        """Losses that a head brings along, in place of its task's: what it says of itself can be part of them."""
        canvas, known, _ = zip(*(told(e, self.team.device) for e in examples), strict=True)
        found = head.loss(*shown, torch.cat(canvas), torch.cat(known), [e.rng for e in examples])
        return {loss: (self.recipe.image_weight, value) for loss, value in found.items()}

    def _query(self, example: Example):
        image = example.image[None].to(self.team.device)
        target = image if example.target is None else example.target[None].to(self.team.device)
        return self.recipe.protocol.prepare(image, target, example.rng, self.backbone.schedule)

    def _image_features(self, examples: Sequence[Example]) -> ImageFeatures | None:
        """The image encoder's maps of the examples' images, where tasks get them."""
        if not self.uses_image_features:
            return None
        images = [e.picture for e in examples if e.picture is not None]
        return self.backbone.image_features(torch.stack(images).to(self.team.device).float() / 255)

    def _prompt(self, name: str) -> str:
        return self.recipe.prompts.get(name, self.tasks[name].prompt)

    def _prompted(self, name: str) -> Tensor:
        """A task's prompt, embedded; once, where the text encoder does not learn."""
        prompt = self._prompt(name)
        if self.recipe.text == "full" and self.backbone.text_encoder is not None:
            return self.backbone.embed([prompt], self.recipe.pad)
        if prompt not in self.said:
            with torch.no_grad():
                self.said[prompt] = self.backbone.embed([prompt], self.recipe.pad)
        return self.said[prompt]

    def _labels(self, count: int) -> Tensor | None:
        labels = self.recipe.protocol.class_labels
        return None if labels is None else torch.tensor(labels, device=self.team.device).expand(count, -1)

    def _predictors(self) -> dict[str, Predictor]:
        size, protocol = max(self.recipe.size), self.recipe.protocol
        return {
            t: Predictor(
                self.backbone,
                task,
                protocol,
                self.heads[t],
                Reading(
                    prompt=self._prompt(t),
                    pad=self.recipe.pad,
                    clip=self.recipe.clipping if task.frame else "mean",
                    image_features=self.uses_image_features,
                ),
                size=size,
            )
            for t, task in self.tasks.items()
        }

    def finish(self) -> None:
        """Merge what was added beside the weights into them."""
        settle(self.backbone, self.recipe)
