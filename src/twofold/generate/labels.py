"""Labels of created pictures: asked of the same network, kept in the library's units, with the mask of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..data.codecs import DEFAULT_CODECS
from ..predict.base import Painter
from ..predict.diffusion import Predictor
from ..predict.prediction import SPACES, Prediction
from ..protocols import Answer
from ..sample import Sample
from ..tasks import Task
from . import relative

# How targets are stored whose default would round them, or which have none; over the entries of the default.
_EXACT: dict[str, dict[str, Any]] = {
    "depth": {
        "codec": "npy",
        "kind": "z",
        "scale": 1.0,
        "invalid": [0],
        "infinite": None,
        "unit": "relative",
    },
    "parts": {"codec": "png16", "ignore": [65535]},
    "matting": {"codec": "npy", "scale": 1.0},
}


def check_predictors(predictors: Mapping[str, Painter], label_mode: str) -> None:
    """That the predictors' answers can be stored side by side as labels of created pictures.

    Raises:
        ValueError: two of them are stored as one target, and differ by more than their names; or one is to read the
            features of the denoising walk, and has
            a head that reads none or needs words of its own, or a network that is shown more than a noisy picture, or
            nothing of the walk at all.
    """
    seen: dict[str, str] = {}
    for name, predictor in predictors.items():
        target = predictor.task.target
        if target in seen and not _renamed(predictor.task, predictors[seen[target]].task):
            raise ValueError(
                f"{seen[target]} and {name} are both stored as {target}; create for one of them, the other in a folder "
                "of its own"
            )
        seen.setdefault(target, name)
        if label_mode != "denoise":
            continue
        if not isinstance(predictor, Predictor):
            raise ValueError(
                f"label_mode 'denoise' reads the features of the network that draws, and {name} is said by one that "
                "looks at pictures; use label_mode 'reencode'"
            )
        reads = predictor.head.reads_features
        if not reads:
            raise ValueError(
                f"label_mode 'denoise' reads the features of the last look, and the head of {name} reads none: it "
                "decodes a latent; use label_mode 'reencode', or a model with a head on features"
            )
        if reads == "attention":
            raise ValueError(
                f"label_mode 'denoise' shows the network a picture's caption, and the head of {name} reads how it "
                "looks at words of its own; use label_mode 'reencode'"
            )
        if predictor.reading.image_features:
            raise ValueError(
                f"label_mode 'denoise' has no image for the image encoder that {name} was trained with; use label_mode "
                "'reencode'"
            )
        if predictor.protocol.condition != "replace":
            raise ValueError(
                f"label_mode 'denoise' reads a network that is shown one latent; that of {name} is shown two; use "
                "label_mode 'reencode'"
            )


def _renamed(task: Task, other: Task) -> bool:
    """Whether two tasks are one but for the name, as stand-ins of the laboratory are: one stored label serves both."""
    return replace(task, name=other.name) == other


def read_walk(
    predictor: Predictor, answer: Answer, images: Tensor, about: dict[str, Any]
) -> list[Prediction]:
    """What the task's head makes of the last look of a denoising walk, for pictures ``b 3 h w``.

    The features were made under the picture's caption at the walk's last time step; a head that was taught with a
    prompt of its own, as those of the embedded model were, is asked outside of what it knows.
    """
    h, w = images.shape[-2:]
    canvases, doubts = predictor.painted_surely(answer, (int(h), int(w)))
    return [
        predictor.finished([canvas], images[i], about, None if doubts is None else doubts[i])
        for i, canvas in enumerate(canvases)
    ]


def ask(predictor: Painter, images: Tensor, seeds: Sequence[int]) -> list[Prediction]:
    """What the predictor says of pictures ``b 3 h w``, each with its own seed, all in one batch."""
    return predictor(list(images), seed=list(seeds), batch=len(images))


def as_target(prediction: Prediction) -> Tensor:
    """A prediction as the target ``c h w`` of its task, in the unit of `targets.TARGETS`.

    Depth of a task in metres is in metres, at least a millimetre; other depth as `relative` keeps it.
    """
    if prediction.task.metres:
        return (prediction.map * prediction.task.metres).clamp(min=1e-3)
    if prediction.space in SPACES:
        return relative.to_depth(prediction.map, prediction.space)
    if prediction.task.target == "mask":
        return (prediction.map > 0.5).float()  # a mask is 0 or 1; its task may say how surely
    return prediction.map


def descriptors(predictors: Mapping[str, Painter]) -> dict[str, dict[str, Any]]:
    """How the labels are stored, by target: exactly, normals as half floats (0.03 degrees at most)."""
    found = {}
    for predictor in predictors.values():
        task = predictor.task
        how = dict(_EXACT.get(task.target, DEFAULT_CODECS.get(task.target, {"codec": "npy"})))
        if task.target == "depth" and task.metres:
            how |= {"unit": "m"}
        elif task.target == "depth":
            how[relative.KEY] = predictor.space
        found[task.target] = how
    return found


def masks(
    source: Sample, predictors: Mapping[str, Painter], policy: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """By target, where a created label holds (bool ``1 h w``), and which policy that came of.

    A source without a label of the kind says nothing of where it would hold: then it is ``all`` over.
    """
    everywhere = torch.ones_like(source.image[:1], dtype=torch.bool)
    found, told = {}, {}
    for predictor in predictors.values():
        target = predictor.task.target
        carried = policy == "source" and target in source.valid
        found[target] = source.valid[target].clone() if carried else everywhere.clone()
        told[target] = "source" if carried else "all"
    return found, told
