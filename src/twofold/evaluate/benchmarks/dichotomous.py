"""Foreground masks and dichotomous segmentation: protocols and test sets."""

from __future__ import annotations

from ..protocol import EvalProtocol
from .benchmark import Benchmark

PLAIN = EvalProtocol(
    name="mask/plain",
    version=1,
    title="foreground masks as they are",
    target="mask",
    spaces=("mask", "saliency"),
    metrics=("MASKS.mae", "MASKS.mse", "MASKS.iou"),
    source="no publication: masks are scored without normalization",
)

PYSOD = EvalProtocol(
    name="dis/pysod",
    version=1,
    title="dichotomous segmentation: maximal and weighted F, MAE, S and mean E",
    target="mask",
    spaces=("mask", "saliency"),
    metrics=tuple(f"SALIENCY.{name}" for name in ("max_f", "weighted_f", "mae", "s_measure", "mean_e")),
    source="PySODMetrics; Qin et al. 2022 for the test sets",
    notes="Each prediction is min-max normalized first, as in the published toolkit, so that its contrast has no "
    "influence. The maximum is that of the mean F curve.",
)

HCE = EvalProtocol(
    name="dis/hce",
    version=1,
    title="dichotomous segmentation: human correction effort, threshold 128 of 255",
    target="mask",
    spaces=("mask", "saliency"),
    metrics=("HCE.hce",),
    source="Qin et al. 2022",
    notes="At original size, which takes seconds for an image. Clicks, gamma 5, epsilon 2.",
)

PROTOCOLS = (
    PLAIN,
    PYSOD,
    HCE,
)

BENCHMARKS = (
    *(
        Benchmark(
            f"dis5k-{part}", f"DIS5K, DIS-{part.upper()}", "dis5k", f"DIS-{part.upper()}",
            (PYSOD, HCE, PLAIN), count,
            notes="GenPercept is reported at 768 and at 1024 pixels: choose with --size.",
        )
        for part, count in (("vd", 470), ("te1", 500), ("te2", 500), ("te3", 500), ("te4", 500))
    ),
)  # fmt: skip
