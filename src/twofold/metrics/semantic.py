"""Scores of class ids. What adds is the confusion matrix, so classes are scored over all images together.

As published (Everingham et al. 2015; Cordts et al. 2016): a class that few pixels have weighs as much as any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, valid_pixels


def semantic_metrics(classes: int, ignore: tuple[int, ...] = ()) -> dict[str, Metric]:
    """The scores of maps of ids from 0 to ``classes - 1``, by name; pixels whose true id is in ``ignore`` do not count.

    miou       intersection over union of each class that is true or predicted anywhere, then the mean
    accuracy   share of the pixels
    mean_accuracy  share of each class's pixels, then the mean over the classes that are true anywhere

    Measuring raises ValueError for an id that is no class, or not a whole number.
    """

    def measure(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        total = torch.zeros(classes**2 + 1, dtype=torch.float64)
        for p, t in valid_pixels(prediction, target, valid):
            keep = ~torch.isin(t, t.new_tensor(ignore))
            said, true = (_ids(x[keep], classes, what) for x, what in ((p, "prediction"), (t, "target")))
            total[:-1] += torch.bincount(true * classes + said, minlength=classes**2).cpu()
            total[-1] += len(said) == 0
        return total

    def miou(total: Tensor) -> float:
        confusion = _confusion(total, classes)
        right = confusion.diagonal()
        return _mean(right, confusion.sum(0) + confusion.sum(1) - right)

    def mean_accuracy(total: Tensor) -> float:
        confusion = _confusion(total, classes)
        return _mean(confusion.diagonal(), confusion.sum(1))

    def accuracy(total: Tensor) -> float:
        confusion = _confusion(total, classes)
        return float(confusion.diagonal().sum() / confusion.sum())

    concluded = {"miou": miou, "accuracy": accuracy, "mean_accuracy": mean_accuracy}
    return {name: Metric(name, "", "higher", measure, how) for name, how in concluded.items()}


def _confusion(total: Tensor, classes: int) -> Tensor:
    """How many pixels of class (row) were said to be of class (column)."""
    return total[:-1].reshape(classes, classes)


def _mean(part: Tensor, whole: Tensor) -> float:
    """The mean of part / whole over the classes that there are; NaN when there is none."""
    there = whole > 0
    return float((part[there] / whole[there]).mean())


def _ids(x: Tensor, classes: int, what: str) -> Tensor:
    ids = x.flatten().long()
    strange = (ids != x.flatten()) | (ids < 0) | (ids >= classes)
    if bool(strange.any()):
        found = float(x.flatten()[strange][0])
        raise ValueError(f"the {what} has the id {found:g} at a valid pixel; classes are 0 to {classes - 1}")
    return ids
