"""Surface normals: protocols and test sets."""

from __future__ import annotations

from typing import Any

from ..protocol import EvalProtocol
from .benchmark import Benchmark

_ANGLES = ("mean", "median", "rmse", "below_5", "below_7.5", "below_11.25", "below_22.5", "below_30")
_POOLED = tuple(f"NORMALS.{name}" for name in _ANGLES)

DSINE = EvalProtocol(
    name="normal/dsine",
    version=1,
    title="surface normals, every valid pixel of the set in one pool",
    target="normals",
    spaces=("normals",),
    metrics=_POOLED,
    average="pixels",
    source="Bae & Davison 2024 (DSINE); GenPercept's table of normals",
    notes="The median is that of angles binned by 0.01 degrees.",
)

BAE = EvalProtocol(
    name="normal/bae",
    version=1,
    title="surface normals at 480x640, every valid pixel of the set in one pool",
    target="normals",
    spaces=("normals",),
    metrics=_POOLED,
    average="pixels",
    source="Bae et al. 2021; Diff-2-in-1's table of normals",
    notes="Diff-2-in-1's own script multiplies by 180 / 3.14 (+0.05 %), prints shares as fractions, and scores "
    "predictions stored as 8-bit images of 512x512; none of that is done here.",
)

DIFF2IN1_SCRIPT = EvalProtocol(
    name="normal/diff2in1-script",
    version=2,
    title="surface normals as Diff-2-in-1's own script scores them: after 8 bits, with 3.14 for pi",
    target="normals",
    spaces=("normals",),
    metrics=tuple(
        f"QUIRKS.normals_{name}_of_bytes"
        for name in ("mean", "median", "rmse", "below_11.25", "below_22.5", "below_30")
    ),
    average="pixels",
    source="evaluation.py of Diff-2-in-1's released code",
    notes="To compare with what that script prints, whose shares are fractions. Stored predictions are rounded to "
    "8 bits, resized to the image and rounded again, as that script does with its files of 512x512; a model's "
    "prediction is rounded once, at the image's size.",
)

MARIGOLD = EvalProtocol(
    name="normal/marigold",
    version=1,
    title="surface normals, averaged over each image first",
    target="normals",
    spaces=("normals",),
    metrics=tuple(f"NORMALS_BY_IMAGE.{name}" for name in _ANGLES),
    seed=4321,
    source="Marigold's evaluation of normals",
    notes="The median is the mean of the images' medians.",
)

PROTOCOLS = (
    DSINE,
    BAE,
    DIFF2IN1_SCRIPT,
    MARIGOLD,
)


def _normals(
    name: str, title: str, converter: str, split: str, count: int, origin: Any = "real", notes: str = ""
) -> Benchmark:
    return Benchmark(name, title, converter, split, (DSINE, MARIGOLD), count, origin=origin, notes=notes)


BENCHMARKS = (
    _normals("nyuv2-normals", "NYUv2 test, normals of DSINE's package", "dsine-nyuv2", "test", 654),
    _normals("scannet-normals", "ScanNet, DSINE's 300 images", "dsine-scannet", "test", 300),
    _normals("ibims-normals", "iBims-1, DSINE's package", "dsine-ibims", "test", 100),
    _normals(
        "sintel-normals", "Sintel, DSINE's package", "dsine-sintel", "test", 1064, "rendered",
        "Marigold's normals v1.1 trained on part of these images: never zero-shot for it.",
    ),
    _normals("vkitti-normals", "Virtual KITTI 2, DSINE's package", "dsine-vkitti", "test", 1000, "rendered"),
    Benchmark(
        "nyuv2-normals-bae", "NYUv2 test, normals of Bae's package (Ladicky, GeoNet)", "nyuv2-bae", "test",
        (BAE, MARIGOLD, DIFF2IN1_SCRIPT), 654,
        notes="Only the centre crop of the truth is defined. Other truth than nyuv2-normals in files, not in kind.",
    ),
)  # fmt: skip
