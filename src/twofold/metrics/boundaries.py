"""Boundary F1: accuracy of a depth map's occluding contours (Bochkovskii et al. 2024, Depth Pro, section 4).

Two neighbouring pixels are a contour at threshold t when their depth ratio is above t, so the score does not depend on
a positive scale of the prediction. Precision (recall) is the share of the prediction's (ground truth's) contours that
are contours of both maps, averaged over the four directions of increasing depth (right, left, down, up). F1 is the mean
over ten thresholds from 1.05 to 1.25, weighted by t. Only pairs of valid pixels count. The ground truth has to be dense
and sharp: rendered, or scanned without holes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean, vector

STEPS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)


def _counts(inputs: MetricInput) -> Tensor:
    """Number of contours in both maps, in the prediction and in the ground truth: 3 4 10, by direction and threshold.

    ValueError when a depth is not positive.
    """
    p, d = (x[0] for x in inputs.filled(1.0))
    if not (float(p.min()) > 0 and float(d.min()) > 0):
        raise ValueError("a depth at a valid pixel is not positive; clip the prediction, mask the truth")
    known = inputs.valid[0]
    counts = []
    for dim in (1, 0):
        ratios = torch.stack(_candidate_ratios(*(_ratio(x, dim) for x in (p, d)), _both(known, dim)))
        for predicted, true in (ratios, 1 / ratios):
            # A pair is a contour of both maps for thresholds below the smaller of its two ratios.
            counts.append([_above(x) for x in (torch.minimum(predicted, true), predicted, true)])
    return torch.stack([torch.stack(x) for x in counts], 1)


def _both(known: Tensor, dim: int) -> Tensor:
    n = known.shape[dim] - 1
    return known.narrow(dim, 1, n) & known.narrow(dim, 0, n)


def _ratio(depth: Tensor, dim: int) -> Tensor:
    n = depth.shape[dim] - 1
    return depth.narrow(dim, 1, n) / depth.narrow(dim, 0, n)


def _candidate_ratios(p: Tensor, d: Tensor, known: Tensor) -> list[Tensor]:
    """Both maps' ratios (n) of the valid pairs that exceed the lowest threshold in either map: usually few."""
    high = float(STEPS[0])
    # Slightly inclusive, because the inverse ratio is rounded.
    low = (1 + 1e-9) / high
    mask = (((p > high) | (p < low)) | ((d > high) | (d < low))) & known
    at = mask.flatten().nonzero()[:, 0]
    return [x.flatten()[at] for x in (p, d)]


def _above(ratios: Tensor) -> Tensor:
    """Number of ratios strictly above each threshold, 10."""
    ordered = ratios[ratios > STEPS[0]].sort().values
    return (len(ordered) - torch.searchsorted(ordered, STEPS, right=True)).double()


def _f1(counts: Tensor) -> Tensor:
    """Counts (3 4 10) to the weighted F1; precision and recall are 0 where their denominator is."""
    both, predicted, true = counts
    precision, recall = ((both / x.clamp(min=1)).mean(0) for x in (predicted, true))
    total = precision + recall
    f1 = torch.where(total > 0, 2 * precision * recall / total, 0.0)
    return (f1 * STEPS).sum() / STEPS.sum()


def _image(published: bool, inputs: MetricInput) -> Tensor:
    """[F1, images, skipped]; an image without a true contour counts 0 if `published`, else it is skipped."""
    counts = inputs.cached(_counts)
    if not (inputs.count and (published or bool(counts[2].any()))):
        return vector(0, 0, 1)
    return vector(_f1(counts), 1, 0)


def _pooled(inputs: MetricInput) -> Tensor:
    """The counts, then 1 when the image has no valid pixel."""
    return vector(inputs.cached(_counts), float(inputs.count == 0))


def _compute_pooled(total: Tensor) -> float:
    counts = total[:-1].reshape(3, 4, len(STEPS))
    return float(_f1(counts)) if bool(counts[2].any()) else float("nan")


# boundary_f1            mean over images; one without a contour in its ground truth counts 0, as published
# boundary_f1_there      mean over the images with a contour in their ground truth
# boundary_f1_pooled     from the counts of all images together
BOUNDARIES: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("boundary_f1", "", "higher", partial(_image, True), mean),
        Metric("boundary_f1_there", "", "higher", partial(_image, False), mean),
        Metric("boundary_f1_pooled", "", "higher", _pooled, _compute_pooled),
    )
}
