"""What a person looks at while a model learns: the same few pictures every time, truth, answer and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..predict.base import BasePredictor
from ..sample import Sample
from ..tasks import Task
from ..visualization import color_mask, sheet


def preview(predictors: Mapping[str, BasePredictor], samples: Sequence[Sample]) -> Tensor:
    """A sheet ``3 H W``, a row for each picture and task: picture, truth, answer, error (white is the most).

    Truth is shown as the task encodes and decodes it, so that it and the answer are in the same units. A picture
    without a task's truth has no row for it.

    Raises:
        ValueError: no picture has any of the truths.
    """
    cells: list[Tensor] = []
    titles: list[str] = []
    for sample in samples:
        for name, predictor in predictors.items():
            task = predictor.task
            if task.target in sample.targets:
                cells += _row(predictor, sample)
                titles += [str(sample.id), f"{name}: truth", "answer", "error"]
    return sheet(cells, 4, titles)


def _row(predictor: BasePredictor, sample: Sample) -> list[Tensor]:
    task = predictor.task
    answer = predictor(sample.image).map
    truth, known = _as_map(task, sample)
    error = task.distance(answer, truth)
    most = float(error[known].quantile(0.95)) if bool(known.any()) else 0.0
    shown = color_mask((error / max(most, 1e-6)).clamp(0, 1), known)
    return [
        sample.image,
        torch.where(known, task.show(truth), 0.5),
        task.show(answer),
        shown,
    ]


def _as_map(task: Task, sample: Sample) -> tuple[Tensor, Tensor]:
    target, valid = sample.targets[task.target], sample.valid[task.target]
    canvas, mask = task.encode(target[None], valid[None])
    # Where the encoded target is not an image, it is shown as it is, and the output is something else: logits.
    return (task.decode(canvas) if task.is_image else canvas.float())[0], mask[0]
