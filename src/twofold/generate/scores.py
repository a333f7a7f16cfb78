"""Quality scores of generated samples, and thresholds on them. Nothing is rejected without a threshold.

    rms_pixels       root mean square distance to the source, pixels in [0, 1]; near 0 is a copy
    rms_latents      the same between their latents, whose standard deviation is about 1
    drift.TASK       the label against the source's own, inside the mask
    flip.TASK        the label against that of the mirrored image, mirrored back
    agreement.TASK   labels of the image under two draws of faint noise (4 of 255) and of the protocol's own
    uncertainty.TASK the mean of the head's uncertainty, where it has one

Those of a task are degrees for vectors, percent of pixels for classes, and percent of the range for all others.
Distances are compared after the best scale and shift, of which the scale is not negative: inverted depth does not
agree. There is no perceptual distance (LPIPS): it needs a network that is not part of this package.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import align_affine
from ..predict.base import BasePredictor
from ..predict.prediction import SPACES, Prediction
from ..sample import Sample
from ..tasks import Task
from .config import GenerationConfig, noise_seed
from .labels import predict_labels

NOISE = 4 / 255
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_PER_TASK = ("drift", "flip", "agreement", "uncertainty")
_PER_IMAGE = ("rms_pixels", "rms_latents")
_CONSISTENCY = ("flip", "agreement")
_THRESHOLD = re.compile(r"\s*([a-z_]+)(?:\.([A-Za-z0-9_.:-]+))?\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*")


@dataclass(frozen=True)
class ScoreThreshold:
    """A threshold that a sample has to meet: ``drift<20``, ``drift.normals<20``, ``rms_pixels>0.02``.

    Attributes:
        score: its name; of a score that each task has, every task's must meet it unless ``task`` names one.
        task: its task, or empty.
        sign: one of < <= > >=.
        limit: the number.
    """

    score: str
    task: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> ScoreThreshold:
        """From its text.

        Raises:
            ValueError: it is not a threshold, or there is no such score.
        """
        found = _THRESHOLD.fullmatch(text)
        try:
            limit = float(found[4]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or not math.isfinite(limit):
            raise ValueError(
                f"{text!r} is not a threshold; write 'drift<20', 'flip.normals<=10' or 'rms_pixels>0.02'"
            )
        if found[1] not in (*_PER_TASK, *_PER_IMAGE) or (found[2] and found[1] in _PER_IMAGE):
            raise ValueError(
                f"{text!r} names no score; the scores are {', '.join((*_PER_IMAGE, *_PER_TASK))}"
            )
        return cls(found[1], found[2] or "", found[3], limit)

    @property
    def needs_predictions(self) -> bool:
        """Whether its score needs further predictions, so that it is not among the cheap ones."""
        return self.score in _CONSISTENCY

    def __str__(self) -> str:
        return f"{self.score}{'.' if self.task else ''}{self.task}{self.sign}{self.limit:g}"

    def violation(self, scores: Mapping[str, float]) -> str:
        """Why a sample with these scores does not meet the threshold; empty where it does. A missing score does not."""
        names = [n for n in scores if n == self.score or n.startswith(f"{self.score}.")]
        if self.task:
            names = [n for n in names if n == f"{self.score}.{self.task}"]
        if not names:
            return f"{self}: the sample has no such score"
        wrong = [n for n in names if not _COMPARE[self.sign](scores[n], self.limit)]
        return "; ".join(f"{self}: {n} is {scores[n]:.4g}" for n in wrong)


def quality_scores(
    predictors: Mapping[str, BasePredictor],
    config: GenerationConfig,
    sources: Sequence[Sample],
    images: Tensor,
    latents: tuple[Tensor, Tensor],
    labels: Mapping[str, Sequence[Prediction]],
    valid: Sequence[Mapping[str, Tensor]],
    seeds: Sequence[int],
) -> list[dict[str, float]]:
    """The scores of generated images ``b 3 h w``, to six digits; see `cheap_scores` and `consistency_scores`.

    Args:
        predictors: by task.
        config: says which scores are computed, and whether labels come from the stored image.
        sources: of each image, at its size.
        images: in [0, 1], as stored.
        latents: of sources and of images, each ``b z h w``.
        labels: by task, a prediction of each image.
        valid: of each image, where each target is valid, ``1 h w``.
        seeds: of each image.
    """
    scores = []
    for i, source in enumerate(sources):
        own = {name: found[i] for name, found in labels.items()}
        scores.append(cheap_scores(source, images[i], (latents[0][i], latents[1][i]), own, valid[i]))
    if config.scoring == "all":
        if config.label_mode == "denoise":
            labels = predict_labels(predictors, images, seeds)
        more = consistency_scores(predictors, images, seeds, labels, valid)
        scores = [own | extra for own, extra in zip(scores, more, strict=True)]
    return [{k: float(f"{v:.6g}") for k, v in own.items()} for own in scores]


def cheap_scores(
    source: Sample,
    image: Tensor,
    latents: tuple[Tensor, Tensor],
    labels: Mapping[str, Prediction],
    valid: Mapping[str, Tensor],
) -> dict[str, float]:
    """The scores that need no further prediction.

    Args:
        source: at the size of ``image``.
        image: generated, ``3 h w`` in [0, 1].
        latents: of the source and of the generated image, each ``z h w``.
        labels: the predictions, by task.
        valid: where each target is valid, ``1 h w``.
    """
    scores = {"rms_pixels": _rms(image - source.image), "rms_latents": _rms(latents[0] - latents[1])}
    for name, prediction in labels.items():
        task, mask = prediction.task, valid[prediction.task.target]
        if task.target in source.targets:
            known = mask & source.valid[task.target]
            drift = _drift(prediction, source.targets[task.target], known)
            if drift is not None:
                scores[f"drift.{name}"] = drift
        if prediction.uncertainty is not None and bool(mask.any()):
            scores[f"uncertainty.{name}"] = float(prediction.uncertainty[mask].double().mean())
    return scores


def consistency_scores(
    predictors: Mapping[str, BasePredictor],
    images: Tensor,
    seeds: Sequence[int],
    labels: Mapping[str, Sequence[Prediction]],
    valid: Sequence[Mapping[str, Tensor]],
) -> list[dict[str, float]]:
    """Flip and agreement of each image of a batch, by three more predictions of each task.

    Args:
        predictors: by task.
        images: ``b 3 h w``, as stored.
        seeds: of each image.
        labels: by task, the predictions for the images as they are.
        valid: of each image, where each target is valid, ``1 h w``.
    """
    mirrored = predict_labels(predictors, images.flip(-1), seeds)
    noisy = []
    for draw in (1, 2):
        own = [noise_seed(seed, "agreement", draw) for seed in seeds]
        noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in own]
        noisy.append(predict_labels(predictors, (images + NOISE * torch.stack(noise)).clamp(0, 1), own))
    scores: list[dict[str, float]] = [{} for _ in images]
    for name, predictor in predictors.items():
        task = predictor.task
        for i, found in enumerate(scores):
            mask = valid[i][task.target]
            if bool(mask.any()):
                back = task.flip(mirrored[name][i].map)
                found[f"flip.{name}"] = _distance(task, labels[name][i].map, back, mask)
                first, second = (predictions[name][i].map for predictions in noisy)
                found[f"agreement.{name}"] = _distance(task, first, second, mask)
    return scores


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def _distance(task: Task, a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Mean distance of two maps over a mask: degrees, or percent."""
    if task.space in SPACES:
        a = _align(a, b, mask)
    mean = float(task.distance(a[None], b[None])[0][mask].double().mean())
    return mean if task.frame is not None else 100 * mean  # the distance of vectors is in degrees


def _align(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """``a`` after the least-squares scale and shift to ``b``, the scale being 0 or more."""
    scale, shift = align_affine(a, b, mask)
    if scale < 0:  # then the best scale that is allowed is 0, and the best shift the mean
        scale, shift = 0.0, float(b[mask].double().mean())
    return (a.double() * scale + shift).float()


def _drift(prediction: Prediction, target: Tensor, known: Tensor) -> float | None:
    """The label against the source's own, encoded and decoded as a map; None where nothing is known."""
    task = prediction.task
    if not bool(known.any()):
        return None
    expected = target
    if prediction.space in SPACES:
        encoded, valid = task.encode(target[None], known[None])
        expected, known = task.decode(encoded)[0], valid[0] & known
    return _distance(task, prediction.map, expected, known) if bool(known.any()) else None
