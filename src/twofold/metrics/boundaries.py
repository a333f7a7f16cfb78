"""How well a depth map's occluding contours are placed (Bochkovskii et al. 2024, Depth Pro, section 4).

Two neighbouring pixels are a contour at t when the farther is more than t times as deep as the nearer: a ratio, so
any positive scale of the prediction will do. Precision and recall count the neighbours that are a contour in
both maps among those of the prediction and of the truth, for each of the four directions in which depth may step
(right, left, down, up), and are averaged over them. F1 is averaged over ten t from 1.05 to 1.25, each weighing as t.
Only neighbours that are both valid count. Truth has to be dense and sharp: rendered, or scanned without holes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean, vector

STEPS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)


def _counts(inputs: MetricInput) -> Tensor:
    """Contours in both, in the prediction and in the truth: 3 4 10, by direction and step.

    ValueError when a depth is not positive.
    """
    p, d = (x[0] for x in inputs.filled(1.0))
    if not (float(p.min()) > 0 and float(d.min()) > 0):
        raise ValueError("a depth at a valid pixel is not positive; clip the prediction, mask the truth")
    known = inputs.valid[0]
    found = []
    for dim in (1, 0):
        ratios = torch.stack(_steep(*(_ratio(x, dim) for x in (p, d)), _both(known, dim)))
        for said, true in (ratios, 1 / ratios):
            # Two neighbours are a contour of both maps up to the smaller of their two ratios.
            found.append([_above(x) for x in (torch.minimum(said, true), said, true)])
    return torch.stack([torch.stack(x) for x in found], 1)


def _both(known: Tensor, dim: int) -> Tensor:
    n = known.shape[dim] - 1
    return known.narrow(dim, 1, n) & known.narrow(dim, 0, n)


def _ratio(depth: Tensor, dim: int) -> Tensor:
    n = depth.shape[dim] - 1
    return depth.narrow(dim, 1, n) / depth.narrow(dim, 0, n)


def _steep(p: Tensor, d: Tensor, known: Tensor) -> list[Tensor]:
    """The ratios (n) of those known neighbours that may be a contour of either map: few, of most images."""
    high = float(STEPS[0])
    # A hair more than those: the ratio the other way round is rounded.
    low = (1 + 1e-9) / high
    mask = (((p > high) | (p < low)) | ((d > high) | (d < low))) & known
    at = mask.flatten().nonzero()[:, 0]
    return [x.flatten()[at] for x in (p, d)]


def _above(ratios: Tensor) -> Tensor:
    """How many ratios are strictly above each step, 10."""
    ordered = ratios[ratios > STEPS[0]].sort().values
    return (len(ordered) - torch.searchsorted(ordered, STEPS, right=True)).double()


def _f1(counts: Tensor) -> Tensor:
    """From counts (3 4 10) to the weighed F1; a share of nothing is 0."""
    both, said, true = counts
    precision, recall = ((both / x.clamp(min=1)).mean(0) for x in (said, true))
    total = precision + recall
    f1 = torch.where(total > 0, 2 * precision * recall / total, 0.0)
    return (f1 * STEPS).sum() / STEPS.sum()


def _image(published: bool, inputs: MetricInput) -> Tensor:
    """[F1, images, skipped]; a truth without a contour is skipped unless it counts 0, as published."""
    counts = inputs.cached(_counts)
    if not (inputs.count and (published or bool(counts[2].any()))):
        return vector(0, 0, 1)
    return vector(_f1(counts), 1, 0)


def _pooled(inputs: MetricInput) -> Tensor:
    """The counts, which add, and whether the image has no valid pixel."""
    return vector(inputs.cached(_counts), float(inputs.count == 0))


def _compute_pooled(total: Tensor) -> float:
    counts = total[:-1].reshape(3, 4, len(STEPS))
    return float(_f1(counts)) if bool(counts[2].any()) else float("nan")


# boundary_f1            mean over images; one without a contour in its truth counts 0, as published
# boundary_f1_there      mean over the images with a contour in their truth
# boundary_f1_pooled     of the contours of all images together
BOUNDARIES: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("boundary_f1", "", "higher", partial(_image, True), mean),
        Metric("boundary_f1_there", "", "higher", partial(_image, False), mean),
        Metric("boundary_f1_pooled", "", "higher", _pooled, _compute_pooled),
    )
}
