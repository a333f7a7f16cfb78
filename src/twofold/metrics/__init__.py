"""Scores that add: see `metric.Metric`. One file a family; a new one is a function and a line."""

from twofold.metrics.baselines import trivial_baselines
from twofold.metrics.depth import DEPTH, affine_aligned, crop_mask, disparity_aligned
from twofold.metrics.keypoints import KEYPOINTS, peaks
from twofold.metrics.masks import MASKS
from twofold.metrics.metric import Metric, mean_over_images, mean_over_pixels, skipped
from twofold.metrics.normals import NORMALS, NORMALS_BY_IMAGE, angle
from twofold.metrics.pictures import PICTURES
from twofold.metrics.semantic import semantic_metrics

__all__ = [
    "DEPTH",
    "KEYPOINTS",
    "MASKS",
    "NORMALS",
    "NORMALS_BY_IMAGE",
    "PICTURES",
    "Metric",
    "affine_aligned",
    "angle",
    "crop_mask",
    "disparity_aligned",
    "mean_over_images",
    "mean_over_pixels",
    "peaks",
    "semantic_metrics",
    "skipped",
    "trivial_baselines",
]
