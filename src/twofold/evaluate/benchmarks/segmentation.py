"""Semantic segmentation: protocol and test set."""

from __future__ import annotations

from ..protocol import EvalProtocol
from .benchmark import Benchmark

_IDS = ("semantic.miou", "semantic.accuracy", "semantic.mean_accuracy")

MIOU = EvalProtocol(
    name="seg/miou",
    version=1,
    title="class ids, one confusion matrix for the set",
    target="semantic",
    spaces=("semantic",),
    metrics=_IDS,
    average="set",
    source="Everingham et al. 2015; as mmsegmentation averages it",
    notes="A class that is neither true nor predicted anywhere does not count.",
)

PROTOCOLS = (MIOU,)

BENCHMARKS = (
    Benchmark(
        "ade20k", "ADE20K validation, 150 classes", "ade20k", "validation", (MIOU,), 2000, {"classes": 150}
    ),
)  # fmt: skip
