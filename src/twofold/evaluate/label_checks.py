"""Checks of the labels of an evaluation: if all are constant, a constant prediction gets a perfect score."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.contrast import ValueRange, constant_labels, value_range
from ..sample import Sample
from ..targets import target_spec
from .measure import truth
from .protocol import EvalProtocol
from .rows import Row


def label_range(sample: Sample, protocol: EvalProtocol) -> dict[str, float]:
    """Minimum (``least``) and maximum (``most``) of a label at valid pixels; {} for targets but masks and class ids."""
    spec = target_spec(protocol.target)
    if not (spec.is_share or spec.is_ids):
        return {}
    values = value_range(*truth(sample, protocol))
    return {"least": values.least, "most": values.most}


def label_warnings(rows: Sequence[Row], protocol: EvalProtocol) -> list[str]:
    """A warning if all masks of a set are empty or full, or all class ids are equal."""
    ranges = [
        ValueRange(row["labels"]["least"], row["labels"]["most"])
        for row in rows
        if row["status"] == "done" and "labels" in row
    ]
    problem = constant_labels(protocol.target, ranges)
    return [f"{problem}. A constant prediction gets the same score"] if problem else []
