"""Computes scores from rows. Rows are summed in the order of their ids, so that rounding is reproducible."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..metrics import Metric
from .rows import READABLE, Row, unpack_from

# Bootstrap intervals: resamples of the images, and the fraction cut off at either end.
RESAMPLES, TAIL = 1000, 0.025


def scores(metrics: Sequence[Metric], rows: Iterable[Row]) -> dict[str, float]:
    """The scores over the rows with status ``done``, by metric; NaN without such rows."""
    return _compute(metrics, [row["sums"] for row in _done(rows)])


def baseline_scores(metrics: Sequence[Metric], rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """The scores of image-independent baselines over the same rows, by name of the baseline."""
    done = [row for row in _done(rows) if "baselines" in row]
    names = list(done[0]["baselines"]) if done else []
    return {name: _compute(metrics, [row["baselines"][name] for row in done]) for name in names}


def intervals(metrics: Sequence[Metric], rows: Iterable[Row]) -> dict[str, tuple[float, float]]:
    """95 % confidence intervals of the scores by percentile bootstrap over the images, by metric.

    They measure the variation due to the choice of images, not to training or seed. There are none for fewer than 3
    images, nor for metrics whose sums have more than `rows.READABLE` values.
    """
    done = _done(rows)
    if len(done) < 3:
        return {}
    rng = torch.Generator().manual_seed(0)
    resamples = torch.randint(len(done), (RESAMPLES, len(done)), generator=rng)
    weights = torch.zeros(RESAMPLES, len(done), dtype=torch.float64)
    weights.scatter_add_(1, resamples, torch.ones_like(weights))
    bounds = {}
    for metric in metrics:
        if len(unpack_from(done[0]["sums"], metric.name)) > READABLE:
            continue
        sums = torch.stack([unpack_from(row["sums"], metric.name) for row in done])
        values = sorted(v for v in map(metric.compute, weights @ sums) if math.isfinite(v))
        if values:
            last = len(values) - 1
            bounds[metric.name] = (values[round(TAIL * last)], values[round((1 - TAIL) * last)])
    return bounds


def counts(rows: Iterable[Row], selected: int) -> dict[str, Any]:
    """How many of the selected images were evaluated, skipped and failed; the last two by reason."""
    rows = list(rows)
    return {
        "selected": selected,
        "evaluated": sum(row["status"] == "done" for row in rows),
        "skipped": _reasons(rows, "skipped"),
        "failed": _reasons(rows, "failed"),
        "pending": selected - len(rows),
        "resized": sum("resized" in row for row in rows if row["status"] == "done"),
    }


def _reasons(rows: Sequence[Row], status: str) -> dict[str, int]:
    return dict(sorted(Counter(row["reason"] for row in rows if row["status"] == status).items()))


def ranked(metric: Metric, rows: Iterable[Row]) -> list[Row]:
    """The rows that have a score of this metric, best first; rows of equal score by id."""
    sign = 1 if metric.better == "lower" else -1
    done = [row for row in _done(rows) if row["values"].get(metric.name) is not None]
    return sorted(done, key=lambda row: (sign * row["values"][metric.name], row["id"]))


def _done(rows: Iterable[Row]) -> list[Row]:
    return sorted((row for row in rows if row["status"] == "done"), key=lambda row: row["id"])


def _compute(metrics: Sequence[Metric], sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {}
    for metric in metrics:
        total: Tensor | None = None
        for vectors in sums:
            value = unpack_from(vectors, metric.name)
            total = value if total is None else total + value
        found[metric.name] = math.nan if total is None else metric.compute(total)
    return found
