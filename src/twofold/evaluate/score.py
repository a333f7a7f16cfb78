"""Scores of predictors on samples with ground truth, and of image-independent baselines."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor

from ..image.memory import as_levels
from ..metrics import Metric, measure_many, merge_sums, trivial_baselines
from ..predict.base import BasePredictor, predict_tasks
from ..predict.finite import check_finite
from ..predict.prediction import SPACES
from ..sample import Sample
from .alignment_checks import fitted_scale

Scores = dict[str, float]


def scorable(sample: Sample, target: str) -> bool:
    """Whether a sample has this target with at least one valid pixel."""
    return target in sample.targets and bool(sample.valid[target].any())


def score(predictors: Collection[BasePredictor], samples: Iterable[Sample]) -> Scores:
    """The metrics of each task over the samples that have its target, by ``task/metric``.

    The image of a sample is encoded once for all tasks. Depth tasks have ``task/negative_scale`` if it is not 0: the
    fraction of images whose fitted scale is negative. Near and far are swapped there, which the other scores do not
    show.

    Raises:
        NonFiniteError: a prediction has a NaN or infinite value.
    """
    tasks = {p.task.name: p.task for p in predictors}
    totals: dict[str, dict[str, Tensor]] = {name: {} for name in tasks}
    negative: dict[str, list[bool]] = {name: [] for name in tasks}
    for sample in samples:
        selected = {p.task.name: p for p in predictors if scorable(sample, p.task.target)}
        for name, [prediction] in predict_tasks(selected, [as_levels(sample.image)]):
            task, predicted = tasks[name], prediction.map
            target, valid = sample.targets[task.target], sample.valid[task.target]
            check_finite(predicted, f"the {name} prediction of {sample.id!r}")
            aligned = task.align(predicted, target, valid)
            totals[name] = merge_sums(totals[name], measure_many(task.metrics, aligned, target, valid))
            if task.space in SPACES:
                negative[name].append(fitted_scale(predicted, target, valid, task.space) < 0)
    scores: Scores = {}
    for name, task in tasks.items():
        scores |= {f"{name}/{m.name}": m.compute(totals[name][m.name]) for m in task.metrics if totals[name]}
        if any(negative[name]):
            scores[f"{name}/negative_scale"] = sum(negative[name]) / len(negative[name])
    return scores


def score_baselines(metrics: Iterable[Metric], samples: Iterable[Sample]) -> dict[str, Scores]:
    """Depth scores of image-independent baselines (`metrics.trivial_baselines`), by name of the baseline."""
    metrics = tuple(metrics)
    totals: dict[str, dict[str, Tensor]] = {}
    for sample in samples:
        if not scorable(sample, "depth"):
            continue
        target, valid = sample.targets["depth"], sample.valid["depth"]
        for name, guess in trivial_baselines(target, valid).items():
            totals[name] = merge_sums(totals.get(name, {}), measure_many(metrics, guess, target, valid))
    return {name: {m.name: m.compute(total[m.name]) for m in metrics} for name, total in totals.items()}
