"""Training the denoising network: images under captions, and perception in any protocol, in any mixture.

The image task is what makes the model able to generate; perception tasks are selected by their prompts. Both are
the same network reading the same latents, so either may come first, or both together (`DataConfig.task_weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.image_encoder import ImageFeatures
from ..backbones.stable_diffusion import StableDiffusion
from ..diffusion import from_x0
from ..heads import Head, HeadGroup, text_of
from ..heads.group import at
from ..predict.config import OutputConfig
from ..predict.diffusion import DiffusionPredictor
from ..predict.finite import check_finite
from ..protocols import ModelInput, collate
from .config import IMAGE
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example, MultiTaskExample
from .groups import by_forward_pass
from .latent_cache import LATENTS
from .trainable import (
    Denoiser,
    check_map_width,
    make_heads,
    make_tasks,
    merge_lora,
    set_trainable,
    uses_image_features,
)
from .perception import PerceptionStage, look_at_pictures, to_batch
from .recipe import Recipe
from .sampler import generator
from .step import Loss, Terms


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
        heads: Mapping[str, Head],
        distributed: DistributedContext,
    ) -> None:
        self.backbone, self.config = backbone, recipe.denoiser
        tasks = make_tasks(recipe)
        self.heads = make_heads(backbone, recipe, heads, tasks)
        set_trainable(backbone, self.heads, recipe)
        check_map_width(backbone, recipe, distributed.device)
        self.module = Denoiser(backbone, self.heads).to(distributed.device)
        if recipe.data.augment:
            backbone.vae.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU
        self.uses_image_features = uses_image_features(backbone, recipe)
        looks = look_at_pictures(recipe, tasks) or self.uses_image_features
        encoder = Encoder(
            backbone, tasks, self.config.latent_loss_weight > 0, self.config.pixel_loss_weight > 0, looks
        )
        super().__init__(
            recipe,
            run,
            distributed,
            tasks,
            encoder,
            run.parent / LATENTS if recipe.data.cache_latents else None,
        )
        self.said: dict[str, Tensor] = {}  # embedded prompts, where they stay as they are

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The images' part of their batch's loss: of each image, the sum over its tasks."""
        loss = Loss(self.distributed.device, self.recipe.loop.batch_size)
        groups = by_forward_pass(examples, self._pass_of)
        if not self.shares_looks:
            # All of them before the student's first: the teacher takes the place of weights that are still needed then.
            groups = [replace(g, images=self._answered(g.images)) for g in groups]
        counted: set[int] = set()
        for group in groups:
            with self.distributed.precision(self.recipe.loop.precision):
                found = self._terms(group.images)
            for kind, terms in found.items():
                places = [i for i, image in zip(group.places, group.images, strict=True) if kind in image]
                loss.add(
                    kind, [e[kind].name for e in group.images if kind in e], terms, len({*places} - counted)
                )
                counted.update(places)
        return loss

    def _pass_of(self, kind: str) -> tuple[str, ...]:
        """What tells the forward pass of a kind from others'.

        Tasks of one image share a pass where the network is shown the same for both: one prompt, and a protocol that
        does not mix a target into its input.
        """
        alone = kind == IMAGE or not self.recipe.joint_tasks or self.config.protocol.kind != "one_step"
        if alone or self.heads[kind].has_prompts:
            return ("kind", kind)
        return ("prompt", self._prompt(kind))

    def _terms(self, images: Sequence[MultiTaskExample]) -> dict[str, Terms]:
        """By kind, the losses of one group's images."""
        if IMAGE in images[0]:
            return {IMAGE: self.image_terms([image[IMAGE] for image in images])}
        return self.perception_terms(images)

    def image_terms(self, examples: Sequence[Example]) -> Terms:
        """Squared error of the prediction at uniformly random times, under captions (Salimans & Ho 2022)."""
        schedule, device = self.backbone.schedule, self.distributed.device
        x0 = torch.stack([e.image for e in examples])
        t = torch.cat([torch.randint(schedule.steps, (1,), generator=e.rng) for e in examples])
        noise = torch.stack([torch.randn(e.shape, generator=e.rng) for e in examples])
        x, alpha, sigma = schedule.add_noise(x0, noise, t)
        wanted = from_x0(x0, noise, alpha, sigma, schedule.prediction_type).to(device)
        text = self.backbone.embed([e.caption for e in examples], pad=True)
        said = self.backbone(x.to(device), t.to(device), text).prediction.float()
        return {"noise": (1.0, (said - wanted).square().flatten(1).mean(1))}

    def perception_terms(self, images: Sequence[MultiTaskExample]) -> dict[str, Terms]:
        """By task, masked squared error of the network's output, and the task's own losses on its head's output.

        The images go through the network once, under the prompt that their tasks have in common.
        """
        firsts = [next(iter(image.values())) for image in images]
        names = [name for name in self.tasks if any(name in image for image in images)]
        places = {name: [i for i, image in enumerate(images) if name in image] for name in names}
        examples = {name: [images[i][name] for i in places[name]] for name in names}
        query = collate([self._query(e) for e in firsts])
        head = self.heads[names[0]]
        text = text_of(head, lambda: self._prompted(names[0])).expand(len(images), -1, -1)
        taps = head.reads_features
        maps = self._image_features(firsts)
        said = self.backbone(query.x, query.t, text, taps, self._labels(len(images)), maps)
        if not taps:  # the decoder may bound an infinite latent
            seen = ", ".join(dict.fromkeys(e.name for e in firsts))
            check_finite(said.prediction, f"the network's {names[0]} output for {seen}")
        shown = query.to_x0(said.prediction), said.features, self.backbone
        if self.shares_looks and any(e.use_teacher_label for e in firsts):
            answers = self._teacher().ema_forward(
                HeadGroup({n: self.heads[n] for n in names}), (*shown, places)
            )
            for name, group in examples.items():
                taught = [p for p, e in zip(answers[name], group, strict=True) if e.use_teacher_label]
                examples[name] = self._apply_pseudo_labels(name, group, taught)
        terms: dict[str, Terms] = {name: {} for name in names}
        if self.config.latent_loss_weight:
            for name, group in examples.items():
                word = at(said.prediction, places[name])
                terms[name] |= self._latent_term(word, query.select(places[name]), group)
        if self.config.pixel_loss_weight:
            for name, found in self._image_terms(shown, examples, places).items():
                terms[name] |= found
        return terms

    def _latent_term(self, word: Tensor, query: ModelInput, examples: Sequence[Example]) -> Terms:
        """Mean squared error of the network's output over the cells that are known."""
        target, mask = (
            torch.stack([getattr(e, k).to(self.distributed.device) for e in examples])
            for k in ("target", "mask")
        )
        keep = mask.expand_as(target)
        error = torch.where(keep, word.float() - query.training_target(target), 0).square().flatten(1)
        return {
            "latent": (self.config.latent_loss_weight, error.sum(1) / keep.flatten(1).sum(1).clamp(min=1))
        }

    def _image_terms(
        self,
        shown: tuple[Tensor, tuple[Tensor, ...], StableDiffusion],
        examples: Mapping[str, Sequence[Example]],
        places: Mapping[str, Sequence[int]],
    ) -> dict[str, Terms]:
        """By task, the losses on its head's output: the head's own where it brings some along, else the task's."""
        own = [n for n in examples if self.heads[n].has_loss and n not in self.recipe.loss]
        group = HeadGroup({name: self.heads[name] for name in examples if name not in own})
        decoded = group(*shown, places)
        terms = {name: self._pixel_loss_terms(name, p.float(), examples[name]) for name, p in decoded.items()}
        x0, features, backbone = shown
        for name in own:
            chosen = at(x0, places[name]), tuple(at(f, places[name]) for f in features), backbone
            terms[name] = self._own_terms(self.heads[name], chosen, examples[name])
        return terms

    @property
    def shares_looks(self) -> bool:
        """Whether teacher and student see the same features, so that one look serves both: only heads learn."""
        config, how = self.config, self.config.protocol
        steady = how.kind == "one_step" and not how.is_stochastic and how.train_timesteps == "same"
        return (
            steady
            and config.unet == "frozen"
            and config.text_encoder == "frozen"
            and not (self.uses_image_features and config.image_encoder.mode == "full")
            and not config.latent_loss_weight
        )

    def _answered(self, images: list[MultiTaskExample]) -> list[MultiTaskExample]:
        """The images with the teacher's answers, reached as they are in use, in place of what was stored."""
        firsts = {
            i: e for i, image in enumerate(images) if (e := next(iter(image.values()))).use_teacher_label
        }
        if not firsts:
            return images
        latent = torch.stack([e.image for e in firsts.values()]).to(self.distributed.device)
        # Noise of its own: what the student is shown must not depend on who says what is to be learned.
        rngs = [generator(self.recipe.loop.seed, "teacher", e.rng.initial_seed()) for e in firsts.values()]
        names = [name for name in self.tasks if any(name in images[i] for i in firsts)]
        places = {name: [n for n, i in enumerate(firsts) if name in images[i]] for name in names}
        predictor = self._predictors()[names[0]]
        decoded: Mapping[str, Tensor] = {}
        with self._teacher().ema_scope():
            conditioning = predictor.conditioning(self._image_features(list(firsts.values())))
            denoise = partial(predictor.denoise, conditioning=conditioning)
            answer = self.config.protocol.sample(denoise, latent, rngs, self.backbone.schedule)
            if self.config.pixel_loss_weight:
                group = HeadGroup({name: self.heads[name] for name in names})
                decoded = group(answer.x0, answer.features, self.backbone, places)
        relabelled = [dict(image) for image in images]
        taught = list(firsts)
        for name in names:
            at_name = [taught[n] for n in places[name]]
            made = self._apply_pseudo_labels(
                name, [images[i][name] for i in at_name], decoded.get(name, ()), at(answer.x0, places[name])
            )
            for i, example in zip(at_name, made, strict=True):
                relabelled[i][name] = example
        return relabelled

    def _own_terms(self, head: Any, shown: tuple[Any, ...], examples: Sequence[Example]) -> Terms:
        """Losses that a head brings along, in place of its task's: what it says of itself can be part of them."""
        canvas, known, _ = zip(*(to_batch(e, self.distributed.device) for e in examples), strict=True)
        found = head.loss(*shown, torch.cat(canvas), torch.cat(known), [e.rng for e in examples])
        return {loss: (self.config.pixel_loss_weight, value) for loss, value in found.items()}

    def _query(self, example: Example):
        image = example.image[None].to(self.distributed.device)
        target = image if example.target is None else example.target[None].to(self.distributed.device)
        return self.config.protocol.prepare(image, target, example.rng, self.backbone.schedule)

    def _image_features(self, examples: Sequence[Example]) -> ImageFeatures | None:
        """The image encoder's maps of the examples' images, where tasks get them."""
        if not self.uses_image_features:
            return None
        images = [e.picture for e in examples if e.picture is not None]
        return self.backbone.image_features(torch.stack(images).to(self.distributed.device).float() / 255)

    def _prompt(self, name: str) -> str:
        return self.config.prompts.get(name, self.tasks[name].prompt)

    def _prompted(self, name: str) -> Tensor:
        """A task's prompt, embedded; once, where the text encoder does not learn."""
        prompt = self._prompt(name)
        if self.config.text_encoder == "full" and self.backbone.text_encoder is not None:
            return self.backbone.embed([prompt], self.config.pad_prompts)
        if prompt not in self.said:
            with torch.no_grad():
                self.said[prompt] = self.backbone.embed([prompt], self.config.pad_prompts)
        return self.said[prompt]

    def _labels(self, count: int) -> Tensor | None:
        labels = self.config.protocol.class_labels
        return (
            None if labels is None else torch.tensor(labels, device=self.distributed.device).expand(count, -1)
        )

    def _predictors(self) -> dict[str, DiffusionPredictor]:
        size, protocol = max(self.recipe.data.size), self.config.protocol
        return {
            t: DiffusionPredictor(
                self.backbone,
                task,
                protocol,
                self.heads[t],
                OutputConfig(
                    prompt=self._prompt(t),
                    pad=self.config.pad_prompts,
                    clip=self.recipe.clipping if task.frame else "mean",
                    image_features=self.uses_image_features,
                ),
                size=size,
            )
            for t, task in self.tasks.items()
        }

    def finish(self) -> None:
        """Merge what was added beside the weights into them."""
        merge_lora(self.backbone, self.recipe)
