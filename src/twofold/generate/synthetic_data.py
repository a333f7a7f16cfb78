"""Synthetic data: new labelled samples from labelled samples, generated and labelled by one diffusion model."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..backbones.backbone import Backbone
from ..checkpoints import Model, Network, check_generator
from ..compat.diff2in1 import resize_to_square
from ..diffusion import randn_tensor
from ..image import check_range
from ..predict.base import BasePredictor
from ..predict.diffusion import DiffusionPredictor
from ..predict.finite import NonFiniteError
from ..predict.prediction import Prediction
from ..protocols import DenoiserOutput
from ..sample import Provenance, Sample
from .captions import TEMPLATE, get_caption
from .config import DEFAULT_CONFIG, GenerationConfig, noise_seed
from .images import DenoisedLatents, ImageGenerator
from .labels import (
    check_eval_mode,
    check_predictors,
    feature_kind,
    label_masks,
    label_module,
    predict_from_features,
    predict_labels,
    to_targets,
)
from .provenance import (
    generator_record,
    network_digests,
    pixels_digest,
    predictor_record,
    sample_id,
    versions,
    weights_digest,
)
from .resizing import resize_sample
from .sampling import SamplingPlan, sampling_plan
from .scores import quality_scores


@dataclass(frozen=True)
class _Batch:
    """Generated images ``b 3 h w`` of 256 levels, latents ``b z h w`` of sources and images, and features."""

    images: Tensor
    source_latents: Tensor
    latents: Tensor
    denoised: DenoisedLatents


class SyntheticDataGenerator:
    """Generates labelled samples from labelled samples (SDEdit, Meng et al. 2022; Diff-2-in-1, Zheng et al. 2025).

    A generated sample depends on its source, its index and the configuration only: not on the batch or the order. The
    results of batches of different sizes may differ by rounding.

    Args:
        backbone: generates the images.
        predictors: label them, by task: predictors on the same ``backbone``, or any others. None: images without
            labels.
        config: everything else that decides the numbers.
        weights: identifies the weights in the record of each sample, such as digests or a training step. When None, a
            sha256 of the current weights of backbone and heads.
        model: its name, for the record.
        template: caption of sources without one.
        captioner: of those, in place of the template: a hub id or folder of an image-to-text model (`captioner`).
        classes: names of the ids of a source's ``semantic`` target, by id, for a template with ``{classes}``.

    Raises:
        ValueError: the network takes more than a noisy latent, so it generates no images; or predictors that cannot
            label in the chosen mode (`labels.check_predictors`), or a configuration that the schedule does not allow.
    """

    def __init__(
        self,
        backbone: Backbone,
        predictors: Mapping[str, BasePredictor],
        config: GenerationConfig = DEFAULT_CONFIG,
        weights: Mapping[str, Any] | None = None,
        model: str = "",
        template: str = TEMPLATE,
        captioner: str = "",
        classes: Mapping[int, str] | Sequence[str] = (),
    ) -> None:
        if backbone.input_channels != backbone.latent_channels:
            raise ValueError(
                f"the U-Net takes {backbone.input_channels} channels and a noisy latent has "
                f"{backbone.latent_channels}, so it generates no images; use a text-to-image model, or a predictor "
                "that kept its input"
            )
        check_predictors(predictors, config.label_mode)
        self.backbone, self.predictors, self.config = backbone, dict(predictors), config
        self.weights = dict(network_digests(backbone, predictors) if weights is None else weights)
        self.model, self.template, self.captioner = model, template, captioner
        self.classes = dict(classes if isinstance(classes, Mapping) else enumerate(classes))
        self.plan: SamplingPlan = sampling_plan(config, backbone.schedule)
        self.images = ImageGenerator(backbone, config.steps, config.guidance, config.sampler)

    @classmethod
    def from_model(
        cls,
        model: Model | Network,
        tasks: Sequence[str] = (),
        config: GenerationConfig = DEFAULT_CONFIG,
        template: str = TEMPLATE,
        captioner: str = "",
        classes: Mapping[int, str] | Sequence[str] = (),
        image_model: Model | None = None,
    ) -> SyntheticDataGenerator:
        """The generator of an opened model.

        Args:
            model: labels the images, and generates them unless ``image_model`` is given.
            tasks: of the labels; all tasks of the model when empty.
            config: see the class, as the others are.
            template: caption of sources without one.
            captioner: in place of the template.
            classes: names of class ids.
            image_model: generates the images, for a model that generates none, such as a network of one's own.

        Raises:
            ModelError: an unknown task, or a model that cannot generate images.
            ValueError: see the class; or ``model`` generates no images and ``image_model`` is None.
        """
        predictors: dict[str, BasePredictor] = {name: model.predictor(name) for name in tasks or model.tasks}
        heads = {
            n: weights_digest(p.head) for n, p in predictors.items() if isinstance(p, DiffusionPredictor)
        }
        weights: dict[str, Any] = {"model": model.digest, "heads": heads}
        if image_model is None:
            if isinstance(model, Network):
                raise ValueError(
                    f"{model.name} generates no images; pass the model that does as image_model, such as 'embedded'"
                )
            image_model, name = model, model.name
        else:
            weights["image_model"] = image_model.digest
            name = f"{model.name}, images by {image_model.name}"
        check_generator(image_model)
        return cls(image_model.backbone, predictors, config, weights, name, template, captioner, classes)

    def with_strength(self, strength: float) -> SyntheticDataGenerator:
        """The same generator at another strength."""
        made = copy(self)
        made.config = replace(self.config, strength=strength)
        made.plan = sampling_plan(made.config, self.backbone.schedule)
        return made

    def generate(
        self, sources: Sequence[Sample], indices: Sequence[int] | int = 0, batch: int = 4
    ) -> list[Sample]:
        """A new sample of each source.

        Args:
            sources: single samples of any sizes.
            indices: which of the samples of a source: each index has its own noise.
            batch: how many of one size are computed together.

        Returns:
            In the order of ``sources``: images of 256 levels, a target and its mask for each task, and the provenance
            with all settings and the scores. Ids are those of `sample_id`. No camera: it is not known.

        Raises:
            ValueError: another number of indices than of sources, an image in another range than [0, 1], a caption that
                the model cannot encode, or a network in training mode.
            CaptionError: a source has no caption, and captioner or template gives none.
            NonFiniteError: a network returned NaN or infinity in an image or a label; the message names the source.
        """
        numbers = [indices] * len(sources) if isinstance(indices, int) else list(indices)
        if len(numbers) != len(sources):
            raise ValueError(
                f"{len(numbers)} indices for {len(sources)} sources; pass one, or one for each source"
            )
        if batch < 1:
            raise ValueError(f"batch is {batch}; pass 1 or more")
        labellers = {n: label_module(p) for n, p in self.predictors.items()}
        check_eval_mode({"the backbone": self.backbone, **labellers})
        for source in sources:
            check_range(source.image, f"the image of {source.id!r}")
        resize = resize_to_square if self.config.compat and self.config.size else resize_sample
        resized = [resize(source, self.config.size) for source in sources]
        generated: dict[int, Sample] = {}
        for shape in dict.fromkeys(s.image.shape for s in resized):
            group = [i for i, s in enumerate(resized) if s.image.shape == shape]
            for first in range(0, len(group), batch):
                chunk = group[first : first + batch]
                samples = self._generate_batch(
                    [sources[i] for i in chunk], [resized[i] for i in chunk], [numbers[i] for i in chunk]
                )
                generated.update(zip(chunk, samples, strict=True))
        return [generated[i] for i in range(len(sources))]

    @torch.no_grad()
    def _generate_batch(
        self, sources: list[Sample], resized: list[Sample], indices: list[int]
    ) -> list[Sample]:
        ids = [str(s.id) for s in sources]
        seeds = [noise_seed(self.config.seed, id, i) for id, i in zip(ids, indices, strict=True)]
        device = str(next(self.backbone.parameters()).device)
        captions = [get_caption(s, self.template, self.captioner, device, self.classes) for s in sources]
        images = torch.stack([s.image for s in resized])
        batch = self._generate_images(images, [text for text, _ in captions], seeds, ids)
        masks = [label_masks(s, self.predictors, self.config.mask) for s in resized]
        with _name_sources(ids):
            labels = self._predict_labels(batch, seeds)
            scores = quality_scores(
                self.predictors,
                self.config,
                resized,
                batch.images,
                (batch.source_latents, batch.latents),
                labels,
                [valid for valid, _ in masks],
                seeds,
            )
        common = {
            "model": self.model,
            "weights": dict(self.weights),
            "start": self.plan.start,
            "denoising_steps": len(self.plan.timesteps),
            "labels": {name: predictor_record(p) for name, p in self.predictors.items()},
            "label_source": "image" if self.config.label_mode == "reencode" else "features",
            "versions": versions(self.backbone),
        }
        samples = []
        for i, source in enumerate(sources):
            (text, text_source), (valid, mask_source) = captions[i], masks[i]
            generator = generator_record(
                self.config,
                source={"id": ids[i], "pixels_sha256": pixels_digest(source.image)},
                caption={"text": text, "source": text_source},
                pixels=list(resized[i].image.shape[-2:]),
                index=indices[i],
                noise_seed=seeds[i],
                masks=mask_source,
                scores=scores[i],
                **common,
            )
            sample = Sample(
                image=batch.images[i],
                targets=to_targets({name: found[i] for name, found in labels.items()}, valid),
                valid=valid,
                caption=text,
                id=sample_id(ids[i], self.plan.start, indices[i]),
                origin=Provenance("synthetic", (ids[i],), generator),
            )
            samples.append(sample)
        return samples

    def _generate_images(
        self, images: Tensor, captions: list[str], seeds: list[int], ids: list[str]
    ) -> _Batch:
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        # The released code draws from the autoencoder's posterior; otherwise its mean is taken.
        source = self.images.encode(images, rngs if self.config.compat == "official" else None)
        noisy = self.images.add_noise(source, randn_tensor(source.shape, rngs, source), self.plan)
        features: list[Any] = []
        if self.config.label_mode == "denoise":
            features = list(dict.fromkeys(feature_kind(p) for p in self.predictors.values()))
        denoised = self.images.denoise(noisy, captions, self.plan, rngs, features)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        generated = self.images.decode(denoised.latents, size, ids)
        levels = (generated * 255).round() / 255
        return _Batch(levels, source.float().cpu(), denoised.latents.float().cpu(), denoised)

    def _predict_labels(self, batch: _Batch, seeds: list[int]) -> dict[str, list[Prediction]]:
        if self.config.label_mode == "reencode":
            return predict_labels(self.predictors, batch.images, seeds)
        labels = {}
        for name, predictor in self.predictors.items():
            assert isinstance(predictor, DiffusionPredictor)  # see check_predictors
            output = DenoiserOutput(batch.denoised.x0, batch.denoised.features[feature_kind(predictor)])
            labels[name] = predict_from_features(predictor, output, batch.images, {"label_mode": "denoise"})
        return labels


@contextmanager
def _name_sources(ids: Sequence[str]) -> Generator[None]:
    """Around the labelling of a batch: a NonFiniteError names the sources concerned."""
    try:
        yield
    except NonFiniteError as error:
        bad = error.positions or tuple(range(len(ids)))
        named = ", ".join(repr(ids[i]) for i in bad)
        raise NonFiniteError(f"the label of the image generated from {named}: {error}", bad) from error
