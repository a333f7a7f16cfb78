"""Rendering of people as heatmaps of joints and as skeleton images; the 17 joints of COCO (Lin et al. 2014).

In a skeleton image, right joints and limbs have the colours of left ones with red and blue exchanged, and those in the
middle have equal red and blue. So mirroring a skeleton image also exchanges red and blue.
"""

from __future__ import annotations

import torch
from torch import Tensor

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
# The index that each joint gets in a mirror image.
MIRRORED = (0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17)))
# Pixels; 2 heatmap cells of 4 pixels in ViTPose.
SIGMA = 8.0


def heatmaps(points: Tensor, labelled: Tensor, size: tuple[int, int], sigma: float = SIGMA) -> Tensor:
    """Heatmaps of joints: Gaussians of height 1 at sub-pixel positions, which `metrics.peaks` recovers.

    Args:
        points: ``*b k 2``, x and y in pixels from the left and upper edge.
        labelled: ``*b k`` bool; COCO's visibility above 0.
        size: height and width of the image.
        sigma: standard deviation in pixels.

    Returns:
        ``*b k h w`` in [0, 1]; -1 everywhere for a joint that is not labelled, which is not trained or scored.
    """
    y, x = (torch.arange(n, device=points.device) + 0.5 for n in size)
    across = (-(x - points[..., :1]).square() / (2 * sigma**2)).exp()
    down = (-(y - points[..., 1:]).square() / (2 * sigma**2)).exp()
    return torch.where(labelled[..., None, None], down[..., :, None] * across[..., None, :], -1.0)


def flip_heatmaps(x: Tensor) -> Tensor:
    """Mirror ``*b 17 h w``: columns are reversed, left and right joints exchanged."""
    return x.flip(-1).index_select(-3, torch.tensor(MIRRORED, device=x.device))


# Pairs of COCO joint indices: those in the middle, then each left one followed by its right one.
LIMBS = (
    (1, 2), (5, 6), (11, 12),
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 9), (8, 10), (5, 11), (6, 12),
    (11, 13), (12, 14), (13, 15), (14, 16),
)  # fmt: skip
# Optimised for a large minimal distance: 0.38 between any two, and from black.
_MIDDLE = ((170, 68, 170), (0, 187, 0), (255, 68, 255), (85, 68, 85))
_LEFT = (
    (255, 255, 170), (187, 68, 0), (85, 255, 0), (85, 119, 0), (255, 204, 85), (170, 255, 85), (255, 255, 0),
    (170, 204, 0), (255, 0, 153), (102, 0, 0), (170, 0, 85), (170, 136, 85), (255, 153, 0), (255, 0, 34),
    (255, 85, 85), (255, 153, 170),
)  # fmt: skip
# Half the width of a limb and the radius of a joint: (share of the longer edge, minimum in pixels).
LIMB, JOINT = (1 / 200, 1.0), (1 / 130, 1.5)


def colours() -> tuple[Tensor, Tensor]:
    """The colours of `LIMBS` (19 3) and of the joints (17 3), in [0, 1]."""
    middle, left = (torch.tensor(c) / 255 for c in (_MIDDLE, _LEFT))
    pairs = torch.stack([left, left.flip(-1)], 1)
    return torch.cat([middle[:3], pairs[:8].flatten(0, 1)]), torch.cat([middle[3:], pairs[8:].flatten(0, 1)])


def draw(people: Tensor, labelled: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw people as a skeleton image: limbs, joints on top, later people over earlier ones.

    Colours of crossing limbs of one person are averaged, so that left and right are symmetric.

    Args:
        people: ``n 17 2``, x and y in pixels from the left and upper edge; n may be 0.
        labelled: ``n 17`` bool, the joints that are drawn; a limb needs both of its ends.
        size: height and width of the image.

    Returns:
        ``3 h w`` in [0, 1], black elsewhere.
    """
    image = torch.zeros(3, *size)
    limbs, joints = colours()
    thin, thick = (max(share * max(size), least) for share, least in (LIMB, JOINT))
    for points, known in zip(people.float(), labelled.tolist(), strict=True):
        ends = [(a, b, c) for (a, b), c in zip(LIMBS, limbs, strict=True) if known[a] and known[b]]
        _over(image, [(points[a], points[b], c) for a, b, c in ends], thin)
        _over(image, [(points[k], points[k], c) for k, c in enumerate(joints) if known[k]], thick)
    return image.clamp(0, 1)


def _over(image: Tensor, strokes: list[tuple[Tensor, Tensor, Tensor]], radius: float) -> None:
    """Draw strokes of one width, each (start, end, colour), onto ``3 h w`` in place."""
    light, cover = torch.zeros_like(image), torch.zeros_like(image[:1])
    for start, end, colour in strokes:
        rows, columns = (_span(start[d], end[d], radius, image.shape[-2 + (1 - d)]) for d in (1, 0))
        if rows.start < rows.stop and columns.start < columns.stop:
            share = _covered(start, end, radius, rows, columns)
            light[:, rows, columns] += share * colour[:, None, None]
            cover[:, rows, columns] += share
    image.mul_(1 - cover.clamp(max=1)).add_(light / cover.clamp(min=1))


def _span(a: Tensor, b: Tensor, radius: float, edge: int) -> slice:
    """The range of pixels on an axis of length ``edge`` that a stroke may cover."""
    low, high = min(float(a), float(b)) - radius - 1, max(float(a), float(b)) + radius + 1
    return slice(int(min(max(low, 0), edge)), int(min(max(high + 1, 0), edge)))


def _covered(start: Tensor, end: Tensor, radius: float, rows: slice, columns: slice) -> Tensor:
    """Coverage of each pixel, in [0, 1], by the stroke of ``radius`` from ``start`` to ``end``."""
    y, x = (torch.arange(s.start, s.stop) + 0.5 for s in (rows, columns))
    dx, dy = x[None] - start[0], y[:, None] - start[1]
    along = end - start
    share = (dx * along[0] + dy * along[1]) / along.square().sum().clamp(min=1e-12)
    share = share.clamp(0, 1)
    away = ((dx - share * along[0]).square() + (dy - share * along[1]).square()).sqrt()
    return (radius + 0.5 - away).clamp(0, 1)
