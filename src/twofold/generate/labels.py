"""Labels of generated images: predicted by the model, in the units of `Sample`, with the mask of the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.codecs import DEFAULT_CODECS
from ..predict.base import BasePredictor, predict_tasks
from ..predict.diffusion import DiffusionPredictor
from ..predict.finite import check_outputs
from ..predict.prediction import SPACES, Prediction
from ..protocols import DenoiserOutput
from ..sample import Sample
from ..targets import target_spec
from ..tasks import Task
from . import relative

# How targets are stored whose default codec rounds them, or that have none; in place of the entries of the default.
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


def default_tasks(tasks: Mapping[str, Task], targets: Collection[str]) -> list[str]:
    """The tasks to create labels of when none are named.

    Args:
        tasks: of the model, by name.
        targets: that the source samples have.

    Returns:
        The tasks whose target the sources have, or all where there is none; of several that are stored as one target
        the one with the target's name, else the first.
    """
    names = [name for name, task in tasks.items() if task.target in targets] or list(tasks)
    found: dict[str, str] = {}
    for name in names:
        target = tasks[name].target
        if target not in found or name == target:
            found[target] = name
    return list(found.values())


def check_predictors(predictors: Mapping[str, BasePredictor], label_mode: str) -> None:
    """Check that the predictions can be stored together as labels of generated images.

    Raises:
        ValueError: two of them are stored as one target and differ in more than their names; or, with ``label_mode``
            'denoise', one reads no features of the denoising U-Net, has a prompt of its own, or takes more than a noisy
            latent.
    """
    seen: dict[str, str] = {}
    for name, predictor in predictors.items():
        target = predictor.task.target
        if target in seen and not _is_renamed(predictor.task, predictors[seen[target]].task):
            raise ValueError(
                f"{seen[target]} and {name} are both stored as {target}; create for one of them, the other in a folder "
                "of its own"
            )
        seen.setdefault(target, name)
        if label_mode == "denoise":
            _check_denoise_mode(name, predictor)


def _check_denoise_mode(name: str, predictor: BasePredictor) -> None:
    """ValueError for a predictor that cannot read its label from the features of the last denoising step."""
    if not isinstance(predictor, DiffusionPredictor):
        raise ValueError(
            f"label_mode 'denoise' reads the features of the network that generates the images, and {name} is "
            "predicted by another one from images; use label_mode 'reencode'"
        )
    reads = feature_kind(predictor)
    if not reads:
        raise ValueError(
            f"label_mode 'denoise' reads the features of the last denoising step, and the head of {name} reads none: "
            "it decodes a latent; use label_mode 'reencode', or a model with a head on features"
        )
    if reads == "attention":
        raise ValueError(
            f"label_mode 'denoise' runs the network under an image's caption, and the head of {name} reads its "
            "attention to a prompt of its own; use label_mode 'reencode'"
        )
    if predictor.config.image_features:
        raise ValueError(
            f"label_mode 'denoise' has no image for the image encoder that {name} was trained with; use label_mode "
            "'reencode'"
        )
    if predictor.protocol.condition != "replace":
        raise ValueError(
            f"label_mode 'denoise' reads a network that takes one latent; that of {name} takes two; use label_mode "
            "'reencode'"
        )


def check_eval_mode(networks: Mapping[str, nn.Module]) -> None:
    """ValueError for one in training mode, whose batch statistics would make a sample depend on its batch."""
    for name, network in networks.items():
        for module in network.modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if module.training and own:
                raise ValueError(
                    f"{name} is in training mode, where a sample depends on its batch; call .eval()"
                )


def _is_renamed(task: Task, other: Task) -> bool:
    """Whether two tasks differ in the name only, as stand-ins of the smoke test do: one stored label serves both."""
    return replace(task, name=other.name) == other


def label_module(predictor: BasePredictor) -> nn.Module:
    """What of a predictor computes the label apart from the backbone: a head, or all of it."""
    return predictor.head if isinstance(predictor, DiffusionPredictor) else predictor


def feature_kind(predictor: BasePredictor) -> Any:
    """The kind of features that a predictor's head reads."""
    return predictor.head.reads_features if isinstance(predictor, DiffusionPredictor) else True


def predict_from_features(
    predictor: DiffusionPredictor, output: DenoiserOutput, images: Tensor, metadata: dict[str, Any]
) -> list[Prediction]:
    """Predictions of a task's head from the features of the last denoising step, for images ``b 3 h w``.

    The features were computed under the image's caption at the last time step: for a head that was trained with a
    prompt of its own, as those of the embedded model were, they are out of distribution.
    """
    h, w = images.shape[-2:]
    outputs, uncertainties = predictor.decode_output(output, (int(h), int(w)))
    errors = [None] * len(outputs) if uncertainties is None else list(uncertainties)
    check_outputs(predictor.task.name, [([x], error) for x, error in zip(outputs, errors, strict=True)])
    return [
        predictor.postprocess([x], image, metadata, error)
        for x, image, error in zip(outputs, images, errors, strict=True)
    ]


def predict_labels(
    predictors: Mapping[str, BasePredictor], images: Tensor, seeds: Sequence[int]
) -> dict[str, list[Prediction]]:
    """Predictions of every task for images ``b 3 h w``, each with its own seed, all in one batch."""
    return dict(predict_tasks(predictors, list(images), seed=seeds, batch=len(images)))


def to_target(prediction: Prediction) -> Tensor:
    """A prediction as the target ``c h w`` of its task, in the unit of `targets.TARGETS`.

    Depth of a task in metres is in metres, at least a millimetre; other depth is stored as `relative` describes.
    """
    if prediction.task.metres:
        return (prediction.map * prediction.task.metres).clamp(min=1e-3)
    if prediction.space in SPACES:
        return relative.to_depth(prediction.map, prediction.space)
    return target_spec(prediction.task.target).discretize(prediction.map)


def to_targets(labels: Mapping[str, Prediction], valid: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The labels by target, 0 where they are not valid; of tasks that differ in the name only, the first's."""
    targets: dict[str, Tensor] = {}
    for prediction in labels.values():
        targets.setdefault(prediction.task.target, to_target(prediction))
    return {target: torch.where(valid[target], label, 0.0) for target, label in targets.items()}


def label_descriptors(predictors: Mapping[str, BasePredictor]) -> dict[str, dict[str, Any]]:
    """How the labels are stored, by target: exactly, normals as half floats (0.03 degrees at most)."""
    found = {}
    for predictor in predictors.values():
        task = predictor.task
        descriptor = dict(_EXACT.get(task.target, DEFAULT_CODECS.get(task.target, {"codec": "npy"})))
        if task.metres:
            descriptor |= {"unit": "m"}
        elif target_spec(task.target).is_distance:
            descriptor[relative.KEY] = predictor.space
        found[task.target] = descriptor
    return found


def label_masks(
    source: Sample, predictors: Mapping[str, BasePredictor], policy: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """By target, where a predicted label is valid (bool ``1 h w``), and which policy applied.

    A source without a label of that kind has no mask of it: then the label is valid everywhere (``all``).
    """
    everywhere = torch.ones_like(source.image[:1], dtype=torch.bool)
    masks, applied = {}, {}
    for predictor in predictors.values():
        target = predictor.task.target
        from_source = policy == "source" and target in source.valid
        masks[target] = source.valid[target].clone() if from_source else everywhere.clone()
        applied[target] = "source" if from_source else "all"
    return masks, applied
