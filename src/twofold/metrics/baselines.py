"""Image-independent depth baselines, to compare scores with.

Each is fitted to the ground truth of the image, like the alignment of an affine-invariant prediction: a lower bound
for a useful model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.metrics.depth import affine_aligned, disparity_aligned


def trivial_baselines(
    target: Tensor, valid: Tensor, clip: tuple[float, float] = (1e-6, float("inf"))
) -> dict[str, Tensor]:
    """The best least-squares fits to one image's depth (metres, 1 h w) over `valid`, float64 1 h w in metres:

    constant       one depth
    row            depth linear in the row
    disparity_row  1 / depth linear in the row, clipped to at least 0.001 and inverted

    All are clipped to `clip` (metres), as predictions are. ValueError when no pixel is valid.
    """
    height, width = target.shape[-2:]
    # From 1: the disparity fit uses positive predictions only.
    row = torch.arange(1, height + 1, dtype=torch.float64)[:, None].expand(1, height, width)
    return {
        "constant": affine_aligned(torch.zeros_like(row), target, valid, clip),
        "row": affine_aligned(row, target, valid, clip),
        "disparity_row": disparity_aligned(row, target, valid, clip),
    }
