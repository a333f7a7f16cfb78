"""Creator: samples to new samples. The network denoises each partially noised source image, and labels the result."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..checkpoints import Model, Network, check_generator
from ..diffusion import to_x0
from ..finite import NonFiniteError
from ..image import check_range, pad_to_multiple
from ..predict.base import Painter
from ..predict.diffusion import Predictor
from ..predict.prediction import Prediction
from ..protocols import Answer
from ..sample import Origin, Sample
from .captions import TEMPLATE, caption_of
from .config import STANDARD, Settings, draw_seed
from .images import check_generated
from .labels import as_target, ask, check_predictors, masks, read_walk
from .provenance import asked, pixels_digest, record, sample_id, versions, weights_digest
from .resizing import fitted, squeezed
from .sampling import Path, path, run
from .scores import asked_scores, free_scores


@dataclass(frozen=True)
class _Drawn:
    """A batch as the network drew it: pictures ``b 3 h w`` in 256 levels, latents, and the last look of each kind."""

    images: Tensor
    clean: Tensor  # of the sources, ``b z h w``
    last: Tensor  # of the pictures
    looks: Mapping[Any, Answer]


class Creator:
    """Draws new samples from samples, with labels by the same network.

    A created sample depends on its source, its index and the settings alone: not on what is created beside it, nor in
    which order. Between batches of other sizes numbers may differ as rounding does.

    Args:
        backbone: that draws.
        predictors: by task, that label: any that share ``backbone``, or others, networks of one's own included. None:
            pictures without labels.
        settings: everything else that decides the numbers.
        weights: what tells the weights apart, for the record of each sample: such as digests, or a step of training.
            When None, a sha256 of what backbone and heads hold now.
        model: its name, for the record.
        template: caption of sources that have none.
        captioner: of those, in the template's place: a hub id or folder of an image-to-text model (`captioner`).
        classes: names of the ids of a source's ``semantic``, by id, for a template that names them.

    Raises:
        ValueError: the network takes more than a noisy latent, so it draws no pictures; or predictors that cannot label
            so (`labels.check_predictors`), or settings that the network's schedule does not allow.
    """

    def __init__(
        self,
        backbone: Backbone,
        predictors: Mapping[str, Painter],
        settings: Settings = STANDARD,
        weights: Mapping[str, Any] | None = None,
        model: str = "",
        template: str = TEMPLATE,
        captioner: str = "",
        classes: Mapping[int, str] | Sequence[str] = (),
    ) -> None:
        if backbone.input_channels != backbone.latent_channels:
            raise ValueError(
                f"a network that is shown {backbone.input_channels} channels draws no pictures of "
                f"{backbone.latent_channels}; create with the text-to-image model, or a predictor that kept its input"
            )
        check_predictors(predictors, settings.label_mode)
        self.backbone, self.predictors, self.settings = backbone, dict(predictors), settings
        self.weights = dict(_digests(backbone, predictors) if weights is None else weights)
        self.model, self.template, self.captioner = model, template, captioner
        self.classes = dict(classes if isinstance(classes, Mapping) else enumerate(classes))
        self.path: Path = path(settings, backbone.schedule)

    def at(self, strength: float) -> Creator:
        """The same at another strength."""
        return Creator(
            self.backbone,
            self.predictors,
            replace(self.settings, strength=strength),
            self.weights,
            self.model,
            self.template,
            self.captioner,
            self.classes,
        )

    def make(
        self, sources: Sequence[Sample], indices: Sequence[int] | int = 0, batch: int = 4
    ) -> list[Sample]:
        """A new sample of each source.

        Args:
            sources: single samples of any sizes.
            indices: which of the samples that can be made of a source: others have other noise.
            batch: how many of one size go through the network together.

        Returns:
            In the order of ``sources``: pictures in 256 levels, a target and its mask for each task, and an origin that
            says how each was made, its scores included. Ids are `sample_id`'s. No camera: it is not known.

        Raises:
            ValueError: another number of indices than of sources, an image in another range than [0, 1], a caption that
                the model cannot be told, or a network in training mode.
            CaptionError: a source has no caption, and captioner or template gives none.
            NonFiniteError: a network returned NaN or infinity in an image or a label; the message names the source.
        """
        numbers = [indices] * len(sources) if isinstance(indices, int) else list(indices)
        if len(numbers) != len(sources):
            raise ValueError(f"{len(numbers)} indices for {len(sources)} sources; give one, or one a source")
        if batch < 1:
            raise ValueError(f"a batch of {batch} samples cannot go through the network")
        _check_modes({"the backbone": self.backbone, **{n: _labeller(p) for n, p in self.predictors.items()}})
        for source in sources:
            check_range(source.image, f"the image of {source.id!r}")
        brought = [self._brought(source) for source in sources]
        made: dict[int, Sample] = {}
        for shape in dict.fromkeys(s.image.shape for s in brought):
            group = [i for i, s in enumerate(brought) if s.image.shape == shape]
            for first in range(0, len(group), batch):
                part = group[first : first + batch]
                new = self._batch(
                    [sources[i] for i in part], [brought[i] for i in part], [numbers[i] for i in part]
                )
                made.update(zip(part, new, strict=True))
        return [made[i] for i in range(len(sources))]

    def _brought(self, source: Sample) -> Sample:
        size = self.settings.size
        return squeezed(source, size) if self.settings.compat == "official" and size else fitted(source, size)

    @torch.no_grad()
    def _batch(self, sources: list[Sample], brought: list[Sample], indices: list[int]) -> list[Sample]:
        seeds = [draw_seed(self.settings.seed, str(s.id), i) for s, i in zip(sources, indices, strict=True)]
        device = str(next(self.backbone.parameters()).device)
        captions = [caption_of(s, self.template, self.captioner, device, self.classes) for s in sources]
        images = torch.stack([s.image for s in brought])
        ids = [str(s.id) for s in sources]
        drawn = self._draw(images, [text for text, _ in captions], seeds, ids)
        with _naming(ids):
            found = self._label(drawn, seeds)
        valid = [masks(s, self.predictors, self.settings.mask) for s in brought]
        with _naming(ids):
            scores = self._scores(drawn, brought, found, [v for v, _ in valid], seeds)
        common = {
            "model": self.model,
            "weights": dict(self.weights),
            "labels": {name: asked(p) for name, p in self.predictors.items()},
            "versions": versions(self.backbone),
        }
        return [
            Sample(
                image=drawn.images[i],
                targets=_targets({name: found[name][i] for name in found}, valid[i][0]),
                valid=valid[i][0],
                caption=captions[i][0],
                id=sample_id(str(sources[i].id), self.path.start, indices[i]),
                origin=Origin(
                    "synthetic",
                    (str(sources[i].id),),
                    record(
                        self.settings,
                        source={"id": str(sources[i].id), "pixels_sha256": pixels_digest(sources[i].image)},
                        caption={"text": captions[i][0], "from": captions[i][1]},
                        start=self.path.start,
                        looks=len(self.path.times),
                        label_source="image" if self.settings.label_mode == "reencode" else "features",
                        pixels=list(brought[i].image.shape[-2:]),
                        index=indices[i],
                        draw_seed=seeds[i],
                        masks=valid[i][1],
                        scores=scores[i],
                        **common,
                    ),
                ),
            )
            for i in range(len(sources))
        ]

    def _draw(self, images: Tensor, captions: list[str], seeds: list[int], ids: list[str]) -> _Drawn:
        net, settings = self.backbone, self.settings
        weights = next(net.parameters())
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        padded, (h, w) = pad_to_multiple(images, net.stride)
        # The released code draws from the autoencoder's posterior; otherwise its mean is taken.
        drawn = rngs if settings.compat == "official" else None
        clean = net.encode((padded * 2 - 1).to(weights), drawn)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=rng) for rng in rngs]).to(clean)
        start = torch.full((len(clean),), self.path.start, device=clean.device)
        noisy, _, _ = net.schedule.noised(clean, noise, start)
        text = net.embed(captions, pad=True)
        empty = net.embed([""] * len(captions), pad=True) if settings.guidance != 1 else None
        looks: dict[Any, Answer] = {}

        def denoise(x: Tensor, t: Tensor, last: bool) -> Answer:
            kinds = self._taps() if last else [False]
            scales = net.schedule.scales_like(t, x)
            for kind in kinds:
                said = net(x, t, text, features=kind)
                word = said.prediction
                if empty is not None:
                    word = torch.lerp(net(x, t, empty).prediction, word, settings.guidance)
                looks[kind] = Answer(to_x0(word, x, *scales, net.schedule.predicts), said.features)
            return looks[kinds[0]]

        x, _ = run(self.path, settings.sampler, denoise, noisy, net.schedule, rngs)
        canvas = net.decode(x)[..., :h, :w].float().cpu()
        check_generated(x, canvas, ids)
        levels = ((canvas.clamp(-1, 1) + 1) / 2 * 255).round() / 255
        return _Drawn(levels, clean.float().cpu(), x.float().cpu(), looks)

    def _taps(self) -> list[Any]:
        """Which features are read at the last look, one kind after the other."""
        if self.settings.label_mode != "denoise" or not self.predictors:
            return [False]
        return list(dict.fromkeys(_reads(p) for p in self.predictors.values()))

    def _label(self, drawn: _Drawn, seeds: list[int]) -> dict[str, list[Prediction]]:
        if self.settings.label_mode == "reencode":
            return {name: ask(p, drawn.images, seeds) for name, p in self.predictors.items()}
        return {
            name: read_walk(p, drawn.looks[_reads(p)], drawn.images, {"label_mode": "denoise"})
            for name, p in self.predictors.items()
            if isinstance(p, Predictor)  # or it was refused
        }

    def _scores(
        self,
        drawn: _Drawn,
        sources: list[Sample],
        found: Mapping[str, list[Prediction]],
        valid: list[dict[str, Tensor]],
        seeds: list[int],
    ) -> list[dict[str, float]]:
        scores = [
            free_scores(
                source,
                drawn.images[i],
                (drawn.clean[i], drawn.last[i]),
                {n: p[i] for n, p in found.items()},
                valid[i],
            )
            for i, source in enumerate(sources)
        ]
        if self.settings.scoring == "all":
            for name, predictor in self.predictors.items():
                target = predictor.task.target
                plain = found[name]
                if self.settings.label_mode == "denoise":
                    plain = ask(predictor, drawn.images, seeds)
                more = asked_scores(predictor, name, drawn.images, seeds, plain, [v[target] for v in valid])
                for own, extra in zip(scores, more, strict=True):
                    own.update(extra)
        return [{k: float(f"{v:.6g}") for k, v in own.items()} for own in scores]


def creator_of(
    model: Model | Network,
    tasks: Sequence[str] = (),
    settings: Settings = STANDARD,
    template: str = TEMPLATE,
    captioner: str = "",
    classes: Mapping[int, str] | Sequence[str] = (),
    drawing: Model | None = None,
) -> Creator:
    """A creator by an opened model, labelling ``tasks``, or all that it knows; none where it knows none.

    ``drawing`` is the model that draws, where that is not the one that labels: one that draws no pictures, such as a
    network of one's own.

    Raises:
        ModelError: a task that it does not know, or a model that cannot generate images.
        ValueError: see `Creator`; or nobody draws.
    """
    predictors: dict[str, Painter] = {name: model.predictor(name) for name in tasks or model.tasks}
    heads = {n: weights_digest(p.head) for n, p in predictors.items() if isinstance(p, Predictor)}
    weights: dict[str, Any] = {"model": model.digest, "heads": heads}
    if drawing is None and isinstance(model, Network):
        raise ValueError(f"{model.name} draws no pictures; say which model does, such as 'embedded'")
    if drawing is not None:
        weights["drawing"] = drawing.digest
    draws = drawing or model
    assert isinstance(draws, Model)
    check_generator(draws)
    name = f"{model.name}, drawn by {drawing.name}" if drawing else model.name
    return Creator(draws.backbone, predictors, settings, weights, name, template, captioner, classes)


def _digests(backbone: Backbone, predictors: Mapping[str, Painter]) -> dict[str, Any]:
    heads = {name: weights_digest(_labeller(p)) for name, p in predictors.items()}
    return {"backbone": weights_digest(backbone), "heads": heads}


def _labeller(predictor: Painter) -> nn.Module:
    """What of a predictor labels and need not draw: a head, or all of it."""
    return predictor.head if isinstance(predictor, Predictor) else predictor


def _reads(predictor: Painter) -> Any:
    """The kind of features that a predictor's head reads."""
    return predictor.head.reads_features if isinstance(predictor, Predictor) else True


def _check_modes(networks: Mapping[str, nn.Module]) -> None:
    """ValueError for one in training mode, whose batch statistics would make a sample depend on those beside it."""
    for name, network in networks.items():
        for module in network.modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if module.training and own:
                raise ValueError(
                    f"{name} is in training mode, where a sample would depend on others; call .eval()"
                )


@contextmanager
def _naming(ids: Sequence[str]) -> Generator[None]:
    """Around the labelling of a batch: a NonFiniteError names the sources concerned."""
    try:
        yield
    except NonFiniteError as error:
        bad = error.positions or tuple(range(len(ids)))
        named = ", ".join(repr(ids[i]) for i in bad)
        raise NonFiniteError(f"the label of the image generated from {named}: {error}", bad) from error


def _targets(found: Mapping[str, Prediction], valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The labels by target, 0 where they do not hold."""
    labels: dict[str, Tensor] = {}
    for p in found.values():  # of tasks that are one but for the name, the first's
        labels.setdefault(p.task.target, as_target(p))
    return {target: torch.where(valid[target], label, 0.0) for target, label in labels.items()}
