"""Training stage of the denoising network: text-to-image diffusion, perception in any protocol, or both.

The image task trains generation; perception tasks are selected by their prompts. Both train the same network on the
same latents, one after the other or jointly (`DataConfig.task_weights`).
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
from ..heads import Head, HeadGroup
from ..heads.group import at
from ..predict.config import OutputConfig
from ..predict.diffusion import DiffusionPredictor
from ..predict.finite import check_finite
from ..protocols import ModelInput, collate, expand_class_labels
from .config import IMAGE
from .distributed import DistributedContext
from .encoder import Encoder
from .examples import Example, MultiTaskExample
from .latent_cache import LATENTS
from .perception import PerceptionStage, losses_need_image, to_batch
from .recipe import Recipe
from .sampler import generator
from .step import Loss, Terms, group_by_forward_pass
from .trainable import (
    Denoiser,
    check_map_width,
    make_heads,
    make_tasks,
    merge_lora,
    set_trainable,
    uses_image_features,
)


class DenoiserStage(PerceptionStage):
    """Losses and scores of the denoiser; see `loop.Stage`.

    Losses are computed per example and averaged over examples, so they do not depend on how a batch is split into
    micro-batches and processes.
    """

    def __init__(
        self,
        backbone: StableDiffusion,
        recipe: Recipe,
        run: Path,
        heads: Mapping[str, Head],
        distributed: DistributedContext,
    ) -> None:
        self.backbone, self.config, self.joint_tasks = backbone, recipe.denoiser, recipe.joint_tasks
        tasks = make_tasks(recipe)
        self.heads = make_heads(backbone, recipe, heads, tasks)
        set_trainable(backbone, self.heads, recipe)
        check_map_width(backbone, recipe, distributed.device)
        self.module = Denoiser(backbone, self.heads).to(distributed.device)
        if recipe.data.augment:
            backbone.vae.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU
        self.uses_image_features = uses_image_features(backbone, recipe)
        need_image = losses_need_image(recipe, tasks) or self.uses_image_features
        encoder = Encoder(
            backbone, tasks, self.config.latent_loss_weight > 0, self.config.pixel_loss_weight > 0, need_image
        )
        super().__init__(
            recipe,
            run,
            distributed,
            tasks,
            encoder,
            run.parent / LATENTS if recipe.data.cache_latents else None,
        )
        self.cached_embeds: dict[str, Tensor] = {}  # by prompt, while the text encoder is frozen

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The loss of ``examples``, a part of a batch; that of an image is the sum over its tasks."""
        loss = Loss(self.distributed.device, self.recipe.loop.batch_size)
        groups = group_by_forward_pass(examples, self._pass_key)
        if not self.shares_features:
            # Before the student's first forward pass: swapping in the teacher's weights would invalidate its graph.
            groups = [replace(g, images=self._pseudo_labelled(g.images)) for g in groups]
        counted: set[int] = set()
        for group in groups:
            with self.distributed.precision(self.recipe.loop.precision):
                found = self._terms(group.images)
            for kind, terms in found.items():
                indices = [i for i, image in zip(group.indices, group.images, strict=True) if kind in image]
                loss.add(
                    kind, [e[kind].name for e in group.images if kind in e], terms, len({*indices} - counted)
                )
                counted.update(indices)
        return loss

    def _pass_key(self, kind: str) -> tuple[str, ...]:
        """The key of a kind's forward pass; kinds of one key share it.

        Tasks share a forward pass if the network's input is the same for both: one prompt, and a protocol that does not
        mix a target into the input.
        """
        separate = kind == IMAGE or not self.joint_tasks or self.config.protocol.kind != "one_step"
        if separate or self.heads[kind].has_prompts:
            return ("kind", kind)
        return ("prompt", self._prompt(kind))

    def _terms(self, images: Sequence[MultiTaskExample]) -> dict[str, Terms]:
        """The loss terms of one group's images, by kind."""
        if IMAGE in images[0]:
            return {IMAGE: self.image_terms([image[IMAGE] for image in images])}
        return self.perception_terms(images)

    def image_terms(self, examples: Sequence[Example]) -> Terms:
        """Squared error of the network's output at uniformly random timesteps with captions (Salimans & Ho 2022)."""
        schedule, device = self.backbone.schedule, self.distributed.device
        x0 = torch.stack([e.image for e in examples])
        t = torch.cat([torch.randint(schedule.steps, (1,), generator=e.rng) for e in examples])
        noise = torch.stack([torch.randn(e.image.shape, generator=e.rng) for e in examples])
        x, alpha, sigma = schedule.add_noise(x0, noise, t)
        target = from_x0(x0, noise, alpha, sigma, schedule.prediction_type).to(device)
        text = self.backbone.embed([e.caption for e in examples], pad=True)
        prediction = self.backbone(x.to(device), t.to(device), text).prediction.float()
        return {"noise": (1.0, (prediction - target).square().flatten(1).mean(1))}

    def perception_terms(self, images: Sequence[MultiTaskExample]) -> dict[str, Terms]:
        """The loss terms of each task: masked squared error between latents, and losses on the head's output.

        One forward pass under the prompt that the tasks have in common.
        """
        firsts = [next(iter(image.values())) for image in images]
        names = [name for name in self.tasks if any(name in image for image in images)]
        indices = {name: [i for i, image in enumerate(images) if name in image] for name in names}
        examples = {name: [images[i][name] for i in indices[name]] for name in names}
        inputs = collate([self._model_input(e) for e in firsts])
        head = self.heads[names[0]]
        own = head.prompt_embeds() if head.has_prompts else None
        text = (self._prompt_embeds(names[0]) if own is None else own).expand(len(images), -1, -1)
        features = self._image_features(firsts)
        labels = expand_class_labels(self.config.protocol.class_labels, inputs.x)
        output = self.backbone(inputs.x, inputs.t, text, head.reads_features, labels, features)
        if not head.reads_features:  # the decoder may bound an infinite latent
            sample_names = ", ".join(dict.fromkeys(e.name for e in firsts))
            check_finite(output.prediction, f"the network's {names[0]} output for {sample_names}")
        head_inputs = inputs.to_x0(output.prediction), output.features, self.backbone
        if self.shares_features and any(e.use_teacher_label for e in firsts):
            decoded = self._teacher().ema_forward(
                HeadGroup({n: self.heads[n] for n in names}), (*head_inputs, indices)
            )
            for name, group in examples.items():
                predicted = [p for p, e in zip(decoded[name], group, strict=True) if e.use_teacher_label]
                examples[name] = self._apply_pseudo_labels(name, group, predicted)
        terms: dict[str, Terms] = {name: {} for name in names}
        if self.config.latent_loss_weight:
            for name, group in examples.items():
                whole = len(group) == len(images)
                prediction = output.prediction if whole else output.prediction[indices[name]]
                terms[name] |= self._latent_term(prediction, inputs.select(indices[name]), group)
        if self.config.pixel_loss_weight:
            for name, found in self._pixel_terms(head_inputs, examples, indices).items():
                terms[name] |= found
        return terms

    def _latent_term(self, prediction: Tensor, inputs: ModelInput, examples: Sequence[Example]) -> Terms:
        """Mean squared error of the network's output over the valid latent cells, ``b``."""
        target, mask = (
            torch.stack([getattr(e, k).to(self.distributed.device) for e in examples])
            for k in ("target", "mask")
        )
        keep = mask.expand_as(target)
        error = torch.where(keep, prediction.float() - inputs.training_target(target), 0).square().flatten(1)
        return {
            "latent": (self.config.latent_loss_weight, error.sum(1) / keep.flatten(1).sum(1).clamp(min=1))
        }

    def _pixel_terms(
        self,
        head_inputs: tuple[Tensor, tuple[Tensor, ...], StableDiffusion],
        examples: Mapping[str, Sequence[Example]],
        indices: Mapping[str, Sequence[int]],
    ) -> dict[str, Terms]:
        """By task, the losses on its head's output: the head's own loss if it has one, else the task's losses."""
        own = [n for n in examples if self.heads[n].has_loss and n not in self.recipe.loss]
        group = HeadGroup({name: self.heads[name] for name in examples if name not in own})
        decoded = group(*head_inputs, indices)
        terms = {name: self._pixel_loss_terms(name, p.float(), examples[name]) for name, p in decoded.items()}
        x0, features, backbone = head_inputs
        for name in own:
            selected = at(x0, indices[name]), tuple(at(f, indices[name]) for f in features), backbone
            terms[name] = self._head_loss_terms(self.heads[name], selected, examples[name])
        return terms

    @property
    def shares_features(self) -> bool:
        """Whether only heads are trained, so that teacher and student share the features of one forward pass."""
        config, protocol = self.config, self.config.protocol
        deterministic = (
            protocol.kind == "one_step" and not protocol.is_stochastic and protocol.train_timesteps == "same"
        )
        return (
            deterministic
            and config.unet == "frozen"
            and config.text_encoder == "frozen"
            and not (self.uses_image_features and config.image_encoder.mode == "full")
            and not config.latent_loss_weight
        )

    def _pseudo_labelled(self, images: list[MultiTaskExample]) -> list[MultiTaskExample]:
        """The images with pseudo-labels, which the teacher predicts as at inference, in place of stored targets."""
        firsts = {
            i: e for i, image in enumerate(images) if (e := next(iter(image.values()))).use_teacher_label
        }
        if not firsts:
            return images
        latent = torch.stack([e.image for e in firsts.values()]).to(self.distributed.device)
        # A separate noise seed: the student's input must not depend on the source of its labels.
        rngs = [generator(self.recipe.loop.seed, "teacher", e.rng.initial_seed()) for e in firsts.values()]
        names = [name for name in self.tasks if any(name in images[i] for i in firsts)]
        positions = {name: [n for n, i in enumerate(firsts) if name in images[i]] for name in names}
        predictor = self._predictors()[names[0]]
        decoded: Mapping[str, Tensor] = {}
        with self._teacher().ema_scope():
            conditioning = predictor.conditioning(self._image_features(list(firsts.values())))
            denoise = partial(predictor.denoise, conditioning=conditioning)
            output = self.config.protocol.sample(denoise, latent, rngs, self.backbone.schedule)
            if self.config.pixel_loss_weight:
                group = HeadGroup({name: self.heads[name] for name in names})
                decoded = group(output.x0, output.features, self.backbone, positions)
        relabelled = [dict(image) for image in images]
        indices = list(firsts)
        for name in names:
            of_task = [indices[n] for n in positions[name]]
            labelled = self._apply_pseudo_labels(
                name,
                [images[i][name] for i in of_task],
                decoded.get(name, ()),
                at(output.x0, positions[name]),
            )
            for i, example in zip(of_task, labelled, strict=True):
                relabelled[i][name] = example
        return relabelled

    def _head_loss_terms(self, head: Any, head_inputs: tuple[Any, ...], examples: Sequence[Example]) -> Terms:
        """The loss terms of a head with a loss of its own (`Head.loss`), in place of its task's."""
        target, valid, _ = zip(*(to_batch(e, self.distributed.device) for e in examples), strict=True)
        found = head.loss(*head_inputs, torch.cat(target), torch.cat(valid), [e.rng for e in examples])
        return {loss: (self.config.pixel_loss_weight, value) for loss, value in found.items()}

    def _model_input(self, example: Example) -> ModelInput:
        image = example.image[None].to(self.distributed.device)
        target = image if example.target is None else example.target[None].to(self.distributed.device)
        return self.config.protocol.prepare(image, target, example.rng, self.backbone.schedule)

    def _image_features(self, examples: Sequence[Example]) -> ImageFeatures | None:
        """The image encoder's features of the examples' images; None where tasks do not use them."""
        if not self.uses_image_features:
            return None
        images = [e.image_uint8 for e in examples if e.image_uint8 is not None]
        return self.backbone.image_features(torch.stack(images).to(self.distributed.device).float() / 255)

    def _prompt(self, name: str) -> str:
        return self.config.prompts.get(name, self.tasks[name].prompt)

    def _prompt_embeds(self, name: str) -> Tensor:
        """A task's prompt, embedded; cached if the text encoder is frozen."""
        prompt = self._prompt(name)
        if self.config.text_encoder == "full" and self.backbone.text_encoder is not None:
            return self.backbone.embed([prompt], self.config.pad_prompts)
        if prompt not in self.cached_embeds:
            with torch.no_grad():
                self.cached_embeds[prompt] = self.backbone.embed([prompt], self.config.pad_prompts)
        return self.cached_embeds[prompt]

    def _predictors(self) -> dict[str, DiffusionPredictor]:
        size, protocol, pad = max(self.recipe.data.size), self.config.protocol, self.config.pad_prompts
        found = {}
        for name, task in self.tasks.items():
            clip = self.recipe.clipping if task.frame else "mean"
            config = OutputConfig(
                prompt=self._prompt(name), pad=pad, clip=clip, image_features=self.uses_image_features
            )
            head = self.heads[name]
            found[name] = DiffusionPredictor(self.backbone, task, protocol, head, config, size=size)
        return found

    def finish(self) -> None:
        """Merge LoRA adapters into the weights."""
        merge_lora(self.backbone, self.recipe)
