"""The protocols there are: every way to score that the field's tables were made with, by name.

Nothing here may change without its version: tests hold each against its fingerprint.
"""

from __future__ import annotations

from ..suggest import unknown
from .protocol import EvalProtocol, EvaluationError

_DEPTH = tuple(
    f"DEPTH.{name}"
    for name in (
        "abs_rel", "delta1", "delta2", "delta3", "sq_rel", "rmse", "rmse_log", "log10", "silog", "i_rmse",
    )
)  # fmt: skip
_ANGLES = ("mean", "median", "rmse", "below_5", "below_7.5", "below_11.25", "below_22.5", "below_30")
_POOLED = tuple(f"NORMALS.{name}" for name in _ANGLES)
_IDS = ("semantic.miou", "semantic.accuracy", "semantic.mean_accuracy")

_ALL = (
    EvalProtocol(
        name="depth/marigold-ls",
        version=1,
        title="affine-invariant depth, scale and shift by least squares on depth",
        target="depth",
        spaces=("depth",),
        align="affine",
        metrics=_DEPTH,
        seed=1234,
        source="Ke et al. 2024 (Marigold); GenPercept, Lotus and E2E-FT score so too",
        notes="The fit is float64 and unweighted; its scale may come out negative. Truth is not clipped.",
    ),
    EvalProtocol(
        name="depth/marigold-ls-disp",
        version=1,
        title="affine-invariant disparity, scale and shift by least squares on 1 / depth",
        target="depth",
        spaces=("disparity",),
        align="disparity",
        metrics=_DEPTH,
        seed=1234,
        source="Ke et al. 2024 (Marigold), its disparity alignment; GenPercept's disparity rows",
        notes="Predictions of 0 and below do not take part in the fit but are scored; nothing is beyond 1000 m.",
    ),
    EvalProtocol(
        name="depth/ls-sqrt-disp",
        version=1,
        title="affine-invariant root of disparity, scale and shift by least squares on 1 / sqrt(depth)",
        target="depth",
        spaces=("sqrt_disparity",),
        align="sqrt_disparity",
        metrics=_DEPTH,
        seed=1234,
        source="the fit of depth/marigold-ls-disp in another space; no table is known to use it",
        notes="The fitted map is held from 1 mm to 1000 m before it is inverted.",
    ),
    EvalProtocol(
        name="depth/ls-log",
        version=1,
        title="affine-invariant logarithm of depth, scale and shift by least squares on ln(depth)",
        target="depth",
        spaces=("log_depth",),
        align="log_depth",
        metrics=_DEPTH,
        seed=1234,
        source="the fit of depth/marigold-ls in another space; no table is known to use it",
        notes="The fitted map is held from 1 mm to 1000 m before it is inverted.",
    ),
    EvalProtocol(
        name="depth/scale",
        version=1,
        title="depth up to one factor, by least squares",
        target="depth",
        spaces=("depth",),
        align="scale",
        metrics=_DEPTH,
        source="scale-invariant depth, as scored for predictors without a shift",
    ),
    EvalProtocol(
        name="depth/median",
        version=1,
        title="depth up to one factor, the ratio of medians",
        target="depth",
        spaces=("depth",),
        align="median",
        metrics=_DEPTH,
        source="Zhou et al. 2017 and self-supervised depth after it",
    ),
    EvalProtocol(
        name="depth/vpd-metric",
        version=1,
        title="metric depth, nothing is fitted",
        target="depth",
        spaces=("depth",),
        metrics=_DEPTH,
        source="Zhao et al. 2023 (VPD); Eigen et al. 2014 for the crop of NYUv2",
        notes="The prediction is in metres and is not clipped; silog is Marigold's (lambda 1, x100), not VPD's.",
    ),
    EvalProtocol(
        name="normal/dsine",
        version=1,
        title="surface normals, every valid pixel of the set in one pool",
        target="normals",
        spaces=("normals",),
        metrics=_POOLED,
        average="pixels",
        source="Bae & Davison 2024 (DSINE); GenPercept's table of normals",
        notes="The median is that of angles binned by 0.01 degrees.",
    ),
    EvalProtocol(
        name="normal/bae",
        version=1,
        title="surface normals at 480x640, every valid pixel of the set in one pool",
        target="normals",
        spaces=("normals",),
        metrics=_POOLED,
        average="pixels",
        source="Bae et al. 2021; Diff-2-in-1's table of normals",
        notes="Diff-2-in-1's own script multiplies by 180 / 3.14 (+0.05 %), prints shares as fractions, and scores "
        "predictions stored as 8-bit pictures of 512x512; none of that is done here.",
    ),
    EvalProtocol(
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
    ),
    EvalProtocol(
        name="normal/marigold",
        version=1,
        title="surface normals, averaged over each image first",
        target="normals",
        spaces=("normals",),
        metrics=tuple(f"NORMALS_BY_IMAGE.{name}" for name in _ANGLES),
        seed=4321,
        source="Marigold's evaluation of normals",
        notes="The median is the mean of the images' medians.",
    ),
    EvalProtocol(
        name="seg/miou",
        version=1,
        title="class ids, one confusion matrix for the set",
        target="semantic",
        spaces=("semantic",),
        metrics=_IDS,
        average="set",
        source="Everingham et al. 2015; as mmsegmentation averages it",
        notes="A class that is neither true nor predicted anywhere does not count.",
    ),
    EvalProtocol(
        name="mask/plain",
        version=1,
        title="foreground masks as they are",
        target="mask",
        spaces=("mask", "saliency"),
        metrics=("MASKS.mae", "MASKS.mse", "MASKS.iou"),
        source="nothing published: what a mask says is what is measured",
    ),
    EvalProtocol(
        name="dis/pysod",
        version=1,
        title="dichotomous segmentation: maximal and weighted F, MAE, S and mean E",
        target="mask",
        spaces=("mask", "saliency"),
        metrics=tuple(f"SALIENCY.{name}" for name in ("max_f", "weighted_f", "mae", "s_measure", "mean_e")),
        source="PySODMetrics; Qin et al. 2022 for the test sets",
        notes="Each prediction is stretched from its least and largest value to 0 and 1 first, as the published "
        "toolkit does: a timid map loses nothing. The maximum is that of the mean F curve.",
    ),
    EvalProtocol(
        name="dis/hce",
        version=1,
        title="dichotomous segmentation: human correction effort, threshold 128 of 255",
        target="mask",
        spaces=("mask", "saliency"),
        metrics=("HCE.hce",),
        source="Qin et al. 2022",
        notes="At original size, which takes seconds a picture. Clicks, gamma 5, epsilon 2.",
    ),
    EvalProtocol(
        name="matting/p3m-whole",
        version=1,
        title="alpha mattes over the whole picture, no trimap",
        target="matting",
        spaces=("alpha",),
        metrics=tuple(f"MATTING.{name}" for name in ("sad", "mad", "mse", "grad", "conn")),
        source="Li et al. 2021 (P3M, AIM) and P3M-Net, which share their code",
        notes="At original resolution: SAD, Grad and Conn grow with it. Conn is the published one, in which a "
        "prediction without any opaque pixel costs nothing.",
    ),
    EvalProtocol(
        name="pose/coco-kp",
        version=1,
        title="people's joints: COCO's average precision",
        target="keypoints",
        spaces=("keypoints",),
        metrics=tuple(
            f"POSE.{name}"
            for name in ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
        ),
        average="set",
        source="Lin et al. 2014; pycocotools counts",
        notes="A model sees each person cut out by the true box, worth some two points over a detector's; a person's "
        "score is the mean height of the joints' peaks above 0.2. Nothing is flipped and near duplicates stay. "
        "The folder knows no crowds: whom a detector finds in one counts as wrong.",
    ),
    EvalProtocol(
        name="mtl/invpt-semseg",
        version=1,
        title="multi-task benchmarks: class ids",
        target="semantic",
        spaces=("semantic",),
        metrics=("semantic_zero.miou", "semantic_zero.accuracy", "semantic_zero.mean_accuracy"),
        average="set",
        source="Ye & Xu 2022 (InvPT), TaskPrompter",
        notes="A class that is neither true nor predicted anywhere counts as 0.",
    ),
    EvalProtocol(
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
        notes="Pictures that show no part of a person do not count.",
    ),
    EvalProtocol(
        name="mtl/invpt-depth",
        version=1,
        title="multi-task benchmarks: metric depth, every valid pixel of the set in one pool",
        target="depth",
        spaces=("depth",),
        metrics=tuple(f"DEPTH_POOLED.{name}" for name in ("rmse", "abs_rel", "rmse_log", "delta1")),
        average="pixels",
        source="Ye & Xu 2022 (InvPT), TaskPrompter",
    ),
    EvalProtocol(
        name="mtl/invpt-normals",
        version=1,
        title="multi-task benchmarks: normals, every valid pixel of the set in one pool",
        target="normals",
        spaces=("normals",),
        metrics=_POOLED,
        average="pixels",
        source="Ye & Xu 2022 (InvPT), TaskPrompter",
    ),
    EvalProtocol(
        name="mtl/invpt-saliency",
        version=1,
        title="multi-task benchmarks: saliency, maximal F over the pixels of the set",
        target="mask",
        spaces=("mask", "saliency"),
        metrics=("MULTITASK_POOLED.saliency_max_f", "MULTITASK_POOLED.saliency_max_f_twice"),
        average="set",
        source="Ye & Xu 2022 (InvPT), TaskPrompter",
        notes="The published code squashes probabilities a second time before it compares them, which leaves five "
        "thresholds: that is saliency_max_f_twice, and what its tables print.",
    ),
    EvalProtocol(
        name="mtl/astmt-depth",
        version=1,
        title="older multi-task benchmarks: metric depth, averaged over images",
        target="depth",
        spaces=("depth",),
        metrics=tuple(
            f"MULTITASK_BY_IMAGE.{n}" for n in ("depth_rmse", "depth_rmse_log", "depth_rmse_unmasked")
        ),
        source="Maninis et al. 2019 (ASTMT), MTI-Net",
        notes="RMSE is a mean over images, its logarithmic form a median. ASTMT's own mask leaves nothing out: "
        "depth_rmse_unmasked.",
    ),
    EvalProtocol(
        name="mtl/astmt-normals",
        version=1,
        title="older multi-task benchmarks: normals, every valid pixel of the set in one pool",
        target="normals",
        spaces=("normals",),
        metrics=_POOLED,
        average="pixels",
        source="Maninis et al. 2019 (ASTMT), MTI-Net",
        notes="They score predictions stored as 8-bit pictures; here they are as they are.",
    ),
    EvalProtocol(
        name="mtl/astmt-saliency",
        version=1,
        title="older multi-task benchmarks: saliency, F of mean precision and recall",
        target="mask",
        spaces=("mask", "saliency"),
        metrics=("MULTITASK_BY_IMAGE.saliency_max_f", "MULTITASK_BY_IMAGE.saliency_iou"),
        source="Maninis et al. 2019 (ASTMT), MTI-Net",
    ),
)

EVAL_PROTOCOLS: dict[str, EvalProtocol] = {protocol.name: protocol for protocol in _ALL}


def get_eval_protocol(name: str) -> EvalProtocol:
    """The protocol called ``name`` or ``name@version``.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    plain, _, version = name.partition("@")
    found = EVAL_PROTOCOLS.get(plain)
    if found is None:
        raise EvaluationError(unknown("protocol", name, EVAL_PROTOCOLS))
    if version and version != str(found.version):
        raise EvaluationError(f"{name} is not in this release, which has {found.id}; install one that has it")
    return found
