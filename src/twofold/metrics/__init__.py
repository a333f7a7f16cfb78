"""Metrics that are computed from sums over images (see `metric.Metric`), one file per family.

Tables of metrics by name: DEPTH, DEPTH_POOLED, DEPTH_VARIANTS, BOUNDARIES, NORMALS, NORMALS_BY_IMAGE, MASKS, SALIENCY,
HCE, MATTING, KEYPOINTS, IMAGE_QUALITY, EDGES, MULTITASK_POOLED, MULTITASK_BY_IMAGE, QUIRKS; for class ids,
`semantic_metrics` and `parsing_metrics`. Functions of whole sets of images: `keypoint_ap`, `fid`, `kid`.
"""

from twofold.metrics.alignment import (
    ALIGNMENTS as ALIGNMENTS,
    CAPS as CAPS,
    fit_grid as fit_grid,
    within_caps as within_caps,
)
from twofold.metrics.baselines import trivial_baselines as trivial_baselines
from twofold.metrics.boundaries import BOUNDARIES as BOUNDARIES
from twofold.metrics.depth import (
    DEPTH as DEPTH,
    DEPTH_POOLED as DEPTH_POOLED,
    DEPTH_VARIANTS as DEPTH_VARIANTS,
    affine_aligned as affine_aligned,
    crop_mask as crop_mask,
    disparity_aligned as disparity_aligned,
)
from twofold.metrics.edges import EDGES as EDGES, edge_metrics as edge_metrics
from twofold.metrics.generation import (
    Features as Features,
    Moments as Moments,
    diversity as diversity,
    fid as fid,
    kid as kid,
    kid_of_subsets as kid_of_subsets,
    mean_distance as mean_distance,
)
from twofold.metrics.hce import HCE as HCE, human_correction_effort as human_correction_effort
from twofold.metrics.image_quality import IMAGE_QUALITY as IMAGE_QUALITY
from twofold.metrics.keypoints import KEYPOINTS as KEYPOINTS, peaks as peaks
from twofold.metrics.masks import MASKS as MASKS
from twofold.metrics.matting import (
    MATTING as MATTING,
    matting_metrics as matting_metrics,
    measure_in_trimap as measure_in_trimap,
)
from twofold.metrics.metric import (
    Metric as Metric,
    MetricInput as MetricInput,
    mean_over_images as mean_over_images,
    mean_over_pixels as mean_over_pixels,
    measure_many as measure_many,
    merge_sums as merge_sums,
    skipped as skipped,
)
from twofold.metrics.multitask import (
    MULTITASK_BY_IMAGE as MULTITASK_BY_IMAGE,
    MULTITASK_POOLED as MULTITASK_POOLED,
    multitask_gain as multitask_gain,
)
from twofold.metrics.normals import NORMALS as NORMALS, NORMALS_BY_IMAGE as NORMALS_BY_IMAGE, angle as angle
from twofold.metrics.parallel import measure_all as measure_all
from twofold.metrics.pose import keypoint_ap as keypoint_ap, oks as oks
from twofold.metrics.quirks import QUIRKS as QUIRKS
from twofold.metrics.saliency import SALIENCY as SALIENCY, saliency_metrics as saliency_metrics
from twofold.metrics.semantic import (
    iou_by_class as iou_by_class,
    parsing_metrics as parsing_metrics,
    semantic_metrics as semantic_metrics,
)
