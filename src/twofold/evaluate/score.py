"""Scores of a predictor on samples with ground truth, and of image-independent baselines."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..finite import check_finite
from ..metrics import Metric, measure_many, merge_sums, trivial_baselines
from ..predict.base import BasePredictor
from ..predict.prediction import SPACES
from ..sample import Sample
from .alignment_checks import fitted_scale

Scores = dict[str, float]


def scorable(sample: Sample, target: str) -> bool:
    """Whether a sample has this target with at least one valid pixel."""
    return target in sample.targets and bool(sample.valid[target].any())


def score(predictor: BasePredictor, samples: Iterable[Sample]) -> Scores:
    """The task's metrics over the samples that have its target, by ``task/metric``.

    Of distances, ``task/negative_scale`` is there where it is not 0: the share of images whose fitted scale is
    negative, so that near and far are exchanged, which the other scores do not show.

    ``predictor`` is a `DiffusionPredictor`, or any other with its interface.

    Raises:
        NonFiniteError: a prediction is NaN or infinite somewhere.
    """
    task = predictor.task
    total: dict[str, Tensor] = {}
    negative: list[bool] = []
    for sample in samples:
        if not scorable(sample, task.target):
            continue
        target, valid = sample.targets[task.target], sample.valid[task.target]
        predicted = predictor(sample.image).map
        check_finite(predicted, f"the {task.name} prediction of {sample.id!r}")
        aligned = task.align(predicted, target, valid)
        total = merge_sums(total, measure_many(task.metrics, aligned, target, valid))
        if task.space in SPACES:
            negative.append(fitted_scale(predicted, target, valid, task.space) < 0)
    scores = {f"{task.name}/{m.name}": m.compute(total[m.name]) for m in task.metrics if m.name in total}
    if any(negative):
        scores[f"{task.name}/negative_scale"] = sum(negative) / len(negative)
    return scores


def score_baselines(metrics: Iterable[Metric], samples: Iterable[Sample]) -> dict[str, Scores]:
    """Depth scores of image-independent baselines (`metrics.trivial_baselines`), by baseline.

    A predictor that is not better than the best of them has not learned depth.
    """
    metrics = tuple(metrics)
    totals: dict[str, dict[str, Tensor]] = {}
    for sample in samples:
        if not scorable(sample, "depth"):
            continue
        target, valid = sample.targets["depth"], sample.valid["depth"]
        for name, guess in trivial_baselines(target, valid).items():
            totals[name] = merge_sums(totals.get(name, {}), measure_many(metrics, guess, target, valid))
    return {name: {m.name: m.compute(total[m.name]) for m in metrics} for name, total in totals.items()}
