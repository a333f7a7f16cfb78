"""Monocular depth: protocols and test sets."""

from __future__ import annotations

import math
from typing import Any

from ..protocol import EvalProtocol
from .benchmark import Benchmark

_METRICS = tuple(
    f"DEPTH.{name}"
    for name in (
        "abs_rel", "delta1", "delta2", "delta3", "sq_rel", "rmse", "rmse_log", "log10", "silog", "i_rmse",
    )
)  # fmt: skip

MARIGOLD_LS = EvalProtocol(
    name="depth/marigold-ls",
    version=1,
    title="affine-invariant depth, scale and shift by least squares on depth",
    target="depth",
    spaces=("depth",),
    align="affine",
    metrics=_METRICS,
    seed=1234,
    source="Ke et al. 2024 (Marigold); GenPercept, Lotus and E2E-FT score so too",
    notes="The fit is float64 and unweighted; its scale may come out negative. Truth is not clipped.",
)

MARIGOLD_LS_DISP = EvalProtocol(
    name="depth/marigold-ls-disp",
    version=1,
    title="affine-invariant disparity, scale and shift by least squares on 1 / depth",
    target="depth",
    spaces=("disparity",),
    align="disparity",
    metrics=_METRICS,
    seed=1234,
    source="Ke et al. 2024 (Marigold), its disparity alignment; GenPercept's disparity rows",
    notes="Predictions of 0 and below are left out of the fit and scored; depth is clipped to 1000 m.",
)

LS_SQRT_DISP = EvalProtocol(
    name="depth/ls-sqrt-disp",
    version=1,
    title="affine-invariant root of disparity, scale and shift by least squares on 1 / sqrt(depth)",
    target="depth",
    spaces=("sqrt_disparity",),
    align="sqrt_disparity",
    metrics=_METRICS,
    seed=1234,
    source="the fit of depth/marigold-ls-disp in another space; no table is known to use it",
    notes="The fitted map is clipped to 1 mm to 1000 m before it is inverted.",
)

LS_LOG = EvalProtocol(
    name="depth/ls-log",
    version=1,
    title="affine-invariant logarithm of depth, scale and shift by least squares on ln(depth)",
    target="depth",
    spaces=("log_depth",),
    align="log_depth",
    metrics=_METRICS,
    seed=1234,
    source="the fit of depth/marigold-ls in another space; no table is known to use it",
    notes="The fitted map is clipped to 1 mm to 1000 m before it is inverted.",
)

SCALE = EvalProtocol(
    name="depth/scale",
    version=1,
    title="depth up to one factor, by least squares",
    target="depth",
    spaces=("depth",),
    align="scale",
    metrics=_METRICS,
    source="scale-invariant depth, as scored for predictors without a shift",
)

MEDIAN = EvalProtocol(
    name="depth/median",
    version=1,
    title="depth up to one factor, the ratio of medians",
    target="depth",
    spaces=("depth",),
    align="median",
    metrics=_METRICS,
    source="Zhou et al. 2017 and self-supervised depth after it",
)

VPD_METRIC = EvalProtocol(
    name="depth/vpd-metric",
    version=1,
    title="metric depth, nothing is fitted",
    target="depth",
    spaces=("depth",),
    metrics=_METRICS,
    source="Zhao et al. 2023 (VPD); Eigen et al. 2014 for the crop of NYUv2",
    notes="The prediction is in metres and is not clipped; silog is Marigold's (lambda 1, x100), not VPD's.",
)

PROTOCOLS = (
    MARIGOLD_LS,
    MARIGOLD_LS_DISP,
    LS_SQRT_DISP,
    LS_LOG,
    SCALE,
    MEDIAN,
    VPD_METRIC,
)

# Protocols that fit scale and shift in the space of the prediction.
_AFFINE = (MARIGOLD_LS, MARIGOLD_LS_DISP, LS_SQRT_DISP, LS_LOG)
_ALL = (*_AFFINE, SCALE, MEDIAN, VPD_METRIC)

_DIODE_NOTES = (
    "Outdoor images dominate the mean: compare indoor and outdoor separately. Edges of the truth are noisy."
)


def _depth(
    name: str,
    title: str,
    converter: str,
    split: str,
    count: int,
    notes: str = "",
    group: str = "",
    **rules: Any,
) -> Benchmark:
    return Benchmark(name, title, converter, split, _ALL, count, rules, notes=notes, group=group)


BENCHMARKS = (
    _depth(
        "nyuv2-depth", "NYUv2 test, raw depth, Eigen's crop", "nyuv2-marigold", "test", 654,
        valid_range=(1e-3, 10.0), clip=(1e-3, 10.0), crop="nyu_eigen", size=0,
    ),
    _depth(
        "kitti-eigen-depth", "KITTI, Eigen's split with improved truth, cut to 352x1216, Eigen's crop",
        "kitti-eigen", "test", 652, "697 are listed, 45 have no truth. Metric papers mostly use Garg's crop: "
        "kitti-garg-depth.",
        valid_range=(1e-5, 80.0), clip=(1e-5, 80.0), window="kitti_benchmark", crop="kitti_eigen", size=0,
    ),
    Benchmark(
        "kitti-garg-depth", "KITTI, Eigen's split with improved truth, cut to 352x1216, Garg's crop", "kitti-eigen",
        "test", (VPD_METRIC, MEDIAN, SCALE, *_AFFINE),
        652, {"valid_range": (1e-3, 80.0), "clip": (1e-3, 80.0), "window": "kitti_benchmark", "crop": "kitti_garg",
              "size": 0},
    ),
    _depth(
        "scannet-depth", "ScanNet, Marigold's 800 images of 271 scans", "scannet-marigold", "test", 800,
        valid_range=(1e-3, 10.0), clip=(1e-3, 10.0), size=0,
    ),
    _depth(
        "diode-depth", "DIODE validation, indoor and outdoor", "diode", "val", 771, _DIODE_NOTES, "scene",
        clip=(0.6, 350.0), size=640,
    ),
    _depth(
        "eth3d-depth", "ETH3D, high-resolution multi-view training images", "eth3d", "train", 454,
        "As published, the fit uses the truth with its columns decimated to 1024 and all of its rows.",
        valid_range=(1e-5, math.inf), clip=(1e-5, math.inf), fit_columns=1024, size=756,
    ),
)  # fmt: skip
