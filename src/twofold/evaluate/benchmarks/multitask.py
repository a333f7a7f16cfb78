"""Multi-task benchmarks: protocols and test sets."""

from __future__ import annotations

from ..protocol import EvalProtocol
from .benchmark import Benchmark
from .normals import DSINE

INVPT_SEMSEG = EvalProtocol(
    name="mtl/invpt-semseg",
    version=1,
    title="multi-task benchmarks: class ids",
    target="semantic",
    spaces=("semantic",),
    metrics=("semantic_zero.miou", "semantic_zero.accuracy", "semantic_zero.mean_accuracy"),
    average="set",
    source="Ye & Xu 2022 (InvPT), TaskPrompter",
    notes="A class that is neither true nor predicted anywhere counts as 0.",
)

INVPT_PARTS = EvalProtocol(
    name="mtl/invpt-parts",
    version=1,
    title="multi-task benchmarks: parts of people",
    target="parts",
    spaces=("semantic",),
    metrics=("parsing.miou", "parsing.accuracy", "parsing.mean_accuracy"),
    average="set",
    classes=7,
    ignore=(255,),
    source="Ye & Xu 2022 (InvPT), TaskPrompter",
    notes="Images without any part of a person do not count.",
)

INVPT_DEPTH = EvalProtocol(
    name="mtl/invpt-depth",
    version=1,
    title="multi-task benchmarks: metric depth, every valid pixel of the set in one pool",
    target="depth",
    spaces=("depth",),
    metrics=tuple(f"DEPTH_POOLED.{name}" for name in ("rmse", "abs_rel", "rmse_log", "delta1")),
    average="pixels",
    source="Ye & Xu 2022 (InvPT), TaskPrompter",
)

INVPT_NORMALS = EvalProtocol(
    name="mtl/invpt-normals",
    version=1,
    title="multi-task benchmarks: normals, every valid pixel of the set in one pool",
    target="normals",
    spaces=("normals",),
    metrics=DSINE.metrics,
    average="pixels",
    source="Ye & Xu 2022 (InvPT), TaskPrompter",
)

INVPT_SALIENCY = EvalProtocol(
    name="mtl/invpt-saliency",
    version=1,
    title="multi-task benchmarks: saliency, maximal F over the pixels of the set",
    target="mask",
    spaces=("mask", "saliency"),
    metrics=("MULTITASK_POOLED.saliency_max_f", "MULTITASK_POOLED.saliency_max_f_twice"),
    average="set",
    source="Ye & Xu 2022 (InvPT), TaskPrompter",
    notes="The published code applies the sigmoid twice before thresholding, which leaves five thresholds: "
    "that is saliency_max_f_twice, and the number in its tables.",
)

ASTMT_DEPTH = EvalProtocol(
    name="mtl/astmt-depth",
    version=1,
    title="older multi-task benchmarks: metric depth, averaged over images",
    target="depth",
    spaces=("depth",),
    metrics=tuple(f"MULTITASK_BY_IMAGE.{n}" for n in ("depth_rmse", "depth_rmse_log", "depth_rmse_unmasked")),
    source="Maninis et al. 2019 (ASTMT), MTI-Net",
    notes="RMSE is a mean over images, its logarithmic form a median. ASTMT's own mask excludes nothing: "
    "depth_rmse_unmasked.",
)

ASTMT_NORMALS = EvalProtocol(
    name="mtl/astmt-normals",
    version=1,
    title="older multi-task benchmarks: normals, every valid pixel of the set in one pool",
    target="normals",
    spaces=("normals",),
    metrics=DSINE.metrics,
    average="pixels",
    source="Maninis et al. 2019 (ASTMT), MTI-Net",
    notes="They score predictions stored as 8-bit images; here they are scored without quantization.",
)

ASTMT_SALIENCY = EvalProtocol(
    name="mtl/astmt-saliency",
    version=1,
    title="older multi-task benchmarks: saliency, F of mean precision and recall",
    target="mask",
    spaces=("mask", "saliency"),
    metrics=("MULTITASK_BY_IMAGE.saliency_max_f", "MULTITASK_BY_IMAGE.saliency_iou"),
    source="Maninis et al. 2019 (ASTMT), MTI-Net",
)

PROTOCOLS = (
    INVPT_SEMSEG,
    INVPT_PARTS,
    INVPT_DEPTH,
    INVPT_NORMALS,
    INVPT_SALIENCY,
    ASTMT_DEPTH,
    ASTMT_NORMALS,
    ASTMT_SALIENCY,
)

BENCHMARKS = (
    Benchmark(
        "nyud-mt-semseg", "NYUD-MT, 40 classes", "nyud-mt", "val", (INVPT_SEMSEG,), 654, {"classes": 40}
    ),
    Benchmark("nyud-mt-depth", "NYUD-MT, depth in metres", "nyud-mt", "val", (INVPT_DEPTH,), 654),
    Benchmark("nyud-mt-normals", "NYUD-MT, normals", "nyud-mt", "val", (INVPT_NORMALS,), 654),
    Benchmark(
        "pascal-context-semseg", "PASCAL-Context (multi-task), 21 classes", "pascal-mt", "val",
        (INVPT_SEMSEG,), 5105, {"classes": 21},
    ),
    Benchmark(
        "pascal-context-parts", "PASCAL-Context (multi-task), parts of people", "pascal-mt", "val",
        (INVPT_PARTS,), 5105, {"classes": 7},
        notes="Images without people have no valid truth: fewer are evaluated.",
    ),
    Benchmark(
        "pascal-context-saliency", "PASCAL-Context (multi-task), saliency", "pascal-mt", "val",
        (INVPT_SALIENCY,), 5105, notes="The truth was distilled from a network.",
    ),
    Benchmark(
        "pascal-context-normals", "PASCAL-Context (multi-task), normals", "pascal-mt", "val",
        (INVPT_NORMALS,), 5105, notes="The truth was distilled from a network.",
    ),
)  # fmt: skip
