"""Scores of class ids. What adds is the confusion matrix, so classes are scored over all images together.

As published (Everingham et al. 2015; Cordts et al. 2016): a class that few pixels have weighs as much as any other.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, vector

Absent = Literal["skip", "zero"]


def semantic_metrics(
    classes: int, ignore: tuple[int, ...] = (), absent: Absent = "skip", needs: tuple[int, ...] = ()
) -> dict[str, Metric]:
    """The scores of maps of ids from 0 to ``classes - 1``, by name; pixels whose true id is in ``ignore`` do not count.

    miou       intersection over union of each class that is true or predicted anywhere, then the mean
    accuracy   share of the pixels
    mean_accuracy  share of each class's pixels, then the mean over the classes that are true anywhere

    Args:
        classes: how many there are.
        ignore: true ids that do not count.
        absent: whether a class that is neither true nor predicted anywhere is left out of ``miou`` (``skip``, as
            mmsegmentation has it) or counts as 0 (``zero``: the ADE20K development kit, InvPT, TaskPrompter).
        needs: ids of which a true one must be somewhere in an image for it to count; any image does when empty.

    Measuring raises ValueError for an id that is no class, or not a whole number.
    """
    count = partial(_count, classes, ignore, needs)
    scores = {"miou": partial(_miou, absent), "accuracy": _accuracy, "mean_accuracy": _mean_accuracy}
    return {name: Metric(name, "", "higher", count, how) for name, how in scores.items()}


def parsing_metrics(parts: int = 6, ignore: tuple[int, ...] = (255,)) -> dict[str, Metric]:
    """The scores of body parts 1 to `parts` and the background, 0 (PASCAL-Person-Part, Chen et al. 2014).

    Images that show no part do not count, so background is scored only where there are people (as multi-task
    benchmarks have it); they are among the skipped.
    """
    return semantic_metrics(parts + 1, ignore, needs=tuple(range(1, parts + 1)))


def iou_by_class(total: Tensor) -> Tensor:
    """The intersection over union of each class, from the sum of any metric here; NaN for a class that is nowhere."""
    confusion = _confusion(total)
    right = confusion.diagonal()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def _count(classes: int, ignore: tuple[int, ...], needs: tuple[int, ...], inputs: MetricInput) -> Tensor:
    """The confusion matrix of one image, row by row, then whether nothing of it counts."""
    predicted, true = inputs.p.flatten(), inputs.d.flatten()
    for unknown in ignore:
        keep = true != unknown
        predicted, true = predicted[keep], true[keep]
    predicted, true = _ids(predicted, classes, "prediction"), _ids(true, classes, "target")
    if needs and not bool(torch.isin(true, true.new_tensor(needs)).any()):
        predicted, true = predicted[:0], true[:0]
    confusion = torch.bincount(true * classes + predicted, minlength=classes**2)
    return vector(confusion, float(len(true) == 0))


def _miou(absent: Absent, total: Tensor) -> float:
    each = iou_by_class(total)
    if absent == "zero" and bool(total[:-1].any()):
        each = each.nan_to_num(nan=0.0)
    return float(each.nanmean())


def _accuracy(total: Tensor) -> float:
    confusion = _confusion(total)
    return float(confusion.diagonal().sum() / confusion.sum())


def _mean_accuracy(total: Tensor) -> float:
    confusion = _confusion(total)
    return float((confusion.diagonal() / confusion.sum(1)).nanmean())


def _confusion(total: Tensor) -> Tensor:
    """How many pixels of class (row) were predicted to be of class (column)."""
    classes = math.isqrt(len(total) - 1)
    return total[:-1].reshape(classes, classes)


def _ids(x: Tensor, classes: int, what: str) -> Tensor:
    ids = x.long()
    unknown = (ids != x) | (ids < 0) | (ids >= classes)
    if bool(unknown.any()):
        found = float(x[unknown][0])
        raise ValueError(f"the {what} has the id {found:g} at a valid pixel; classes are 0 to {classes - 1}")
    return ids
