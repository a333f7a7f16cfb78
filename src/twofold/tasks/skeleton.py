"""People as pictures of their joints and limbs: any number of them, in one look, through any head.

Right joints and limbs have the colours of left ones with red and blue exchanged, and those of the middle as much red as
blue. So a mirror image, in which left is right, is made of the picture alone: exchange red and blue.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..metrics import peaks
from .keypoints import JOINTS
from .keypoints import flip as flip_heatmaps
from .pictures import encode as encode_picture
from .pictures import picture_task
from .task import Task

# Pairs of joints by COCO's numbers from 0: those of the middle, then left ones, each before its right one.
LIMBS = (
    (1, 2), (5, 6), (11, 12),
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 9), (8, 10), (5, 11), (6, 12),
    (11, 13), (12, 14), (13, 15), (14, 16),
)  # fmt: skip
# Found by moving each colour away from its nearest one until none could: 0.38 of 1 apart, and as far from black.
_MIDDLE = ((170, 68, 170), (0, 187, 0), (255, 68, 255), (85, 68, 85))
_LEFT = (
    (255, 255, 170), (187, 68, 0), (85, 255, 0), (85, 119, 0), (255, 204, 85), (170, 255, 85), (255, 255, 0),
    (170, 204, 0), (255, 0, 153), (102, 0, 0), (170, 0, 85), (170, 136, 85), (255, 153, 0), (255, 0, 34),
    (255, 85, 85), (255, 153, 170),
)  # fmt: skip
# Half the width of a limb and the radius of a joint, as shares of the longer edge, and in pixels at least.
LIMB, JOINT = (1 / 200, 1.0), (1 / 130, 1.5)


def colours() -> tuple[Tensor, Tensor]:
    """The colours of `LIMBS` (19 3) and of the joints (17 3), in [0, 1]."""
    middle, left = (torch.tensor(c) / 255 for c in (_MIDDLE, _LEFT))
    pairs = torch.stack([left, left.flip(-1)], 1)
    return torch.cat([middle[:3], pairs[:8].flatten(0, 1)]), torch.cat([middle[3:], pairs[8:].flatten(0, 1)])


def draw(people: Tensor, labelled: Tensor, size: tuple[int, int]) -> Tensor:
    """People as a picture: limbs, and joints on top of them; a person hides those before.

    Where limbs of one person cross, their colours are mixed, so that left and right are treated alike.

    Args:
        people: ``n 17 2``, x and y in pixels from the left and upper edge; n may be 0.
        labelled: ``n 17`` bool, the joints that are drawn; a limb needs both its ends.
        size: height and width of the picture.

    Returns:
        ``3 h w`` in [0, 1], black where nobody is.
    """
    picture = torch.zeros(3, *size)
    limbs, joints = colours()
    thin, thick = (max(share * max(size), least) for share, least in (LIMB, JOINT))
    for points, known in zip(people.float(), labelled.tolist(), strict=True):
        ends = [(a, b, c) for (a, b), c in zip(LIMBS, limbs, strict=True) if known[a] and known[b]]
        _over(picture, [(points[a], points[b], c) for a, b, c in ends], thin)
        _over(picture, [(points[k], points[k], c) for k, c in enumerate(joints) if known[k]], thick)
    return picture.clamp(0, 1)


def encode(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """A picture ``b 3 h w`` as any other; heatmaps of one person ``b 17 h w`` are drawn first."""
    if target.shape[1] == len(JOINTS):
        found = peaks(target)
        labelled = target.flatten(2).amax(-1) > 0
        size = (int(target.shape[-2]), int(target.shape[-1]))
        drawn = [draw(p[None, :, :2], k[None], size) for p, k in zip(found, labelled, strict=True)]
        target = torch.stack(drawn).to(target)
    return encode_picture(target, valid)


def flip(x: Tensor) -> Tensor:
    """The mirror image of a picture or canvas ``*b 3 h w``, left and right exchanged; of heatmaps theirs."""
    if x.shape[-3] == len(JOINTS):
        return flip_heatmaps(x)
    return x.flip(-1, -3)


def _over(picture: Tensor, strokes: list[tuple[Tensor, Tensor, Tensor]], radius: float) -> None:
    """Strokes of one width, each from a place to a place in a colour, onto ``3 h w`` in place."""
    light, cover = torch.zeros_like(picture), torch.zeros_like(picture[:1])
    for start, end, colour in strokes:
        rows, columns = (_span(start[d], end[d], radius, picture.shape[-2 + (1 - d)]) for d in (1, 0))
        if rows.start < rows.stop and columns.start < columns.stop:
            share = _covered(start, end, radius, rows, columns)
            light[:, rows, columns] += share * colour[:, None, None]
            cover[:, rows, columns] += share
    picture.mul_(1 - cover.clamp(max=1)).add_(light / cover.clamp(min=1))


def _span(a: Tensor, b: Tensor, radius: float, edge: int) -> slice:
    """The pixels of an axis of ``edge`` that a stroke may touch."""
    low, high = min(float(a), float(b)) - radius - 1, max(float(a), float(b)) + radius + 1
    return slice(int(min(max(low, 0), edge)), int(min(max(high + 1, 0), edge)))


def _covered(start: Tensor, end: Tensor, radius: float, rows: slice, columns: slice) -> Tensor:
    """How much of each pixel is nearer than ``radius`` to the line from ``start`` to ``end``, in [0, 1]."""
    y, x = (torch.arange(s.start, s.stop) + 0.5 for s in (rows, columns))
    dx, dy = x[None] - start[0], y[:, None] - start[1]
    along = end - start
    share = (dx * along[0] + dy * along[1]) / along.square().sum().clamp(min=1e-12)
    share = share.clamp(0, 1)
    away = ((dx - share * along[0]).square() + (dy - share * along[1]).square()).sqrt()
    return (radius + 0.5 - away).clamp(0, 1)


skeleton: Task = replace(
    picture_task(
        name="skeleton", prompt="skeletons of people", unit="colours of joints and limbs, sRGB", space="srgb"
    ),
    encode=encode,
    flip=flip,
)
