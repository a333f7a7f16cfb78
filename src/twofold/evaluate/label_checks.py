"""Checks of the labels of an evaluation: where all are empty, a prediction without content scores perfectly."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.contrast import ValueRange, constant_labels, value_range
from ..sample import Sample
from ..targets import target_spec
from .measure import truth
from .protocol import EvalProtocol
from .rows import Row


def label_extent(sample: Sample, protocol: EvalProtocol) -> dict[str, float]:
    """The ``least`` and ``most`` value of a label at valid pixels; {} for targets that may be constant."""
    spec = target_spec(protocol.target)
    if not (spec.is_share or spec.is_ids):
        return {}
    found = value_range(*truth(sample, protocol))
    return {"least": found.least, "most": found.most}


def label_warnings(rows: Sequence[Row], protocol: EvalProtocol) -> list[str]:
    """Warnings of a set: all masks empty or full, or all ids the same."""
    found = [row["labels"] for row in rows if row["status"] == "done" and "labels" in row]
    problem = constant_labels(protocol.target, [ValueRange(e["least"], e["most"]) for e in found])
    return [f"{problem}. A prediction without any content scores as well"] if problem else []
