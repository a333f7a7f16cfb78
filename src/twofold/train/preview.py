"""Preview images of a run: the first validation samples with target, prediction and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..predict.base import BasePredictor, predict_tasks
from ..sample import Sample
from ..tasks import Task
from ..visualization import color_mask, sheet


def preview(predictors: Mapping[str, BasePredictor], samples: Sequence[Sample]) -> Tensor:
    """A contact sheet ``3 H W`` in [0, 1] with a row for each sample and task: image, target, prediction, error.

    The target is encoded and decoded by the task, so that it has the units of the prediction. The error is white at its
    95 % quantile and above. A sample without a task's target has no row for it.

    Raises:
        ValueError: no sample has a target of any task.
    """
    cells: list[Tensor] = []
    titles: list[str] = []
    for sample in samples:
        labelled = {name: p for name, p in predictors.items() if p.task.target in sample.targets}
        for name, [prediction] in predict_tasks(labelled, [sample.image]):
            cells += _row(labelled[name].task, sample, prediction.map)
            titles += [str(sample.id), f"{name}: target", "prediction", "error"]
    return sheet(cells, 4, titles)


def _row(task: Task, sample: Sample, prediction: Tensor) -> list[Tensor]:
    """Image, target, prediction and error of one sample, each ``3 h w`` in [0, 1]; invalid target pixels are grey."""
    target, valid = _target_map(task, sample)
    error = task.distance(prediction, target)
    limit = float(error[valid].quantile(0.95)) if bool(valid.any()) else 0.0
    return [
        sample.image,
        torch.where(valid, task.show(target), 0.5),
        task.show(prediction),
        color_mask((error / max(limit, 1e-6)).clamp(0, 1), valid),
    ]


def _target_map(task: Task, sample: Sample) -> tuple[Tensor, Tensor]:
    """A sample's target ``c h w`` in the units of a prediction, and its valid pixels ``1 h w``."""
    encoded, valid = task.encode(sample.targets[task.target][None], sample.valid[task.target][None])
    # A decoder of logits or heatmaps does not apply to their targets (class ids, joints), which are shown as they are.
    return (task.decode(encoded) if task.is_image else encoded.float())[0], valid[0]
