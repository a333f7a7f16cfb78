"""Marigold's merging of ensemble members, as implemented in diffusers; the default is in `tasks.ensemble`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tasks.ensemble import Merged, check_members


@torch.no_grad()
def diffusers_ensemble(
    members: Tensor,
    shift: bool = True,
    max_res: int = 1024,
    max_iter: int = 2,
    tol: float = 1e-3,
    regularizer: float = 0.02,
    reduction: str = "median",
) -> Merged:
    """Call diffusers' ``MarigoldDepthPipeline.ensemble_depth``, for comparison.

    It optimises scales and shifts by BFGS on the differences of all pairs of members, takes about a hundred times as
    long as `tasks.ensemble.affine`, and may collapse after many iterations.

    Args:
        members: ``n 1 h w`` in [0, 1], with n at least 1.
        shift: True for scale and shift, as in `tasks.ensemble.affine`; False for scale only.
        max_res: longest edge of the downsampled members that are optimised (GenPercept: 50).
        max_iter: iterations of the optimisation.
        tol: tolerance of the optimisation.
        regularizer: weight of the term that keeps the median in [0, 1].
        reduction: ``median``, with the median absolute deviation, or ``mean``, with the standard deviation. For an even
            number of members the median is the lower of the middle two.

    Returns:
        Map in [0, 1] and uncertainty in its units. Scale and shift are None: diffusers does not return them.

    Raises:
        ValueError: there are no members, their shape is wrong, a value is not finite, or the reduction is unknown.
    """
    check_members(members, channels=1)
    if reduction not in ("median", "mean"):
        raise ValueError(f"unknown reduction {reduction!r}; expected median or mean")
    from diffusers import MarigoldDepthPipeline  # imported here: it takes seconds and is rarely needed

    map, uncertainty = MarigoldDepthPipeline.ensemble_depth(
        members,
        scale_invariant=True,
        shift_invariant=shift,
        output_uncertainty=True,
        reduction=reduction,
        regularizer_strength=regularizer,
        max_iter=max_iter,
        tol=tol,
        max_res=max_res,
    )
    return Merged(map[0], uncertainty[0])
