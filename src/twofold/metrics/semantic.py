"""Metrics of class ids, computed from the confusion matrix of all images (Everingham et al. 2015; Cordts et al. 2016).

Averages over classes are unweighted: rare classes count as much as frequent ones.
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
    """The metrics of class id maps, by name.

    miou           intersection over union, averaged over the classes that occur in targets or predictions
    accuracy       share of correctly classified pixels
    mean_accuracy  share of correctly classified pixels of each class, averaged over the classes that occur in targets

    Args:
        classes: number of classes; ids are 0 to ``classes - 1``.
        ignore: true ids whose pixels do not count.
        absent: how ``miou`` treats a class that occurs nowhere: ``skip`` (mmsegmentation) excludes it from the mean,
            ``zero`` (the ADE20K development kit, InvPT, TaskPrompter) counts it as 0.
        needs: an image counts only if its target contains one of these ids; empty for all images.

    Measuring raises ValueError for an id that is not a class.
    """
    count = partial(_count, classes, ignore, needs)
    scores = {"miou": partial(_miou, absent), "accuracy": _accuracy, "mean_accuracy": _mean_accuracy}
    return {name: Metric(name, "", "higher", count, compute) for name, compute in scores.items()}


def parsing_metrics(parts: int = 6, ignore: tuple[int, ...] = (255,)) -> dict[str, Metric]:
    """`semantic_metrics` of body parts 1 to `parts` and background 0 (PASCAL-Person-Part, Chen et al. 2014).

    Images whose target contains no part are skipped, as in multi-task benchmarks.
    """
    return semantic_metrics(parts + 1, ignore, needs=tuple(range(1, parts + 1)))


def iou_by_class(total: Tensor) -> Tensor:
    """Intersection over union of each class, from the sums of any metric here; NaN for a class that occurs nowhere."""
    confusion = _confusion(total)
    right = confusion.diagonal()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def _count(classes: int, ignore: tuple[int, ...], needs: tuple[int, ...], inputs: MetricInput) -> Tensor:
    """The flattened confusion matrix of one image, then 1 when none of its pixels counts."""
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
    """Number of pixels of true class (row) that were predicted as class (column)."""
    classes = math.isqrt(len(total) - 1)
    return total[:-1].reshape(classes, classes)


def _ids(x: Tensor, classes: int, what: str) -> Tensor:
    ids = x.long()
    unknown = (ids != x) | (ids < 0) | (ids >= classes)
    if bool(unknown.any()):
        found = float(x[unknown][0])
        raise ValueError(f"the {what} has the id {found:g} at a valid pixel; classes are 0 to {classes - 1}")
    return ids
