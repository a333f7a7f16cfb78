"""Metrics that are computed from sums over images (see `metric.Metric`), one file per family.

Tables of metrics by name: DEPTH, DEPTH_POOLED, DEPTH_VARIANTS, BOUNDARIES, NORMALS, NORMALS_BY_IMAGE, MASKS, SALIENCY,
HCE, MATTING, KEYPOINTS, IMAGE_QUALITY, EDGES, MULTITASK_POOLED, MULTITASK_BY_IMAGE, QUIRKS; for class ids,
`semantic_metrics` and `parsing_metrics`. Functions of whole sets of images: `keypoint_ap`, `fid`, `kid`.
"""

from twofold.metrics.alignment import ALIGNMENTS, CAPS, fit_grid, within_caps
from twofold.metrics.baselines import trivial_baselines
from twofold.metrics.boundaries import BOUNDARIES
from twofold.metrics.depth import (
    DEPTH,
    DEPTH_POOLED,
    DEPTH_VARIANTS,
    affine_aligned,
    crop_mask,
    disparity_aligned,
)
from twofold.metrics.edges import EDGES, edge_metrics
from twofold.metrics.generation import Features, Moments, diversity, fid, kid, kid_of_subsets, mean_distance
from twofold.metrics.hce import HCE, human_correction_effort
from twofold.metrics.image_quality import IMAGE_QUALITY
from twofold.metrics.keypoints import KEYPOINTS, peaks
from twofold.metrics.masks import MASKS
from twofold.metrics.matting import MATTING, matting_metrics, measure_in_trimap
from twofold.metrics.metric import (
    Metric,
    MetricInput,
    mean_over_images,
    mean_over_pixels,
    measure_many,
    merge_sums,
    skipped,
)
from twofold.metrics.multitask import MULTITASK_BY_IMAGE, MULTITASK_POOLED, multitask_gain
from twofold.metrics.normals import NORMALS, NORMALS_BY_IMAGE, angle
from twofold.metrics.parallel import measure_all
from twofold.metrics.pose import keypoint_ap, oks
from twofold.metrics.quirks import QUIRKS
from twofold.metrics.saliency import SALIENCY, saliency_metrics
from twofold.metrics.semantic import iou_by_class, parsing_metrics, semantic_metrics

__all__ = [
    "ALIGNMENTS",
    "BOUNDARIES",
    "CAPS",
    "DEPTH",
    "DEPTH_POOLED",
    "DEPTH_VARIANTS",
    "EDGES",
    "HCE",
    "KEYPOINTS",
    "MASKS",
    "MATTING",
    "MULTITASK_BY_IMAGE",
    "MULTITASK_POOLED",
    "NORMALS",
    "NORMALS_BY_IMAGE",
    "IMAGE_QUALITY",
    "QUIRKS",
    "SALIENCY",
    "Features",
    "Metric",
    "Moments",
    "MetricInput",
    "affine_aligned",
    "angle",
    "human_correction_effort",
    "crop_mask",
    "disparity_aligned",
    "diversity",
    "edge_metrics",
    "fid",
    "fit_grid",
    "iou_by_class",
    "keypoint_ap",
    "kid",
    "kid_of_subsets",
    "matting_metrics",
    "mean_distance",
    "mean_over_images",
    "mean_over_pixels",
    "measure_all",
    "measure_in_trimap",
    "measure_many",
    "merge_sums",
    "multitask_gain",
    "oks",
    "parsing_metrics",
    "peaks",
    "saliency_metrics",
    "semantic_metrics",
    "skipped",
    "trivial_baselines",
    "within_caps",
]
