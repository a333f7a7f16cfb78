"""Several predictions of one image, merged into one map and how far the members are from it.

Maps known up to scale and shift are first brought to one scale and shift by their second moments: one pass over the
pixels, then algebra on n x n matrices. There is nothing to iterate, and so nothing that could collapse: one member,
the anchor, is taken as it is, and the others are brought to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import unit

# A member whose correlation with what all have in common is lower says less than a tenth of it (r^2 = 0.09).
LEAST = 0.3
# A member with less contrast than this share of the highest is flat: stretched, it would show rounding errors.
FLAT = 1e-3
# Angles in radians that differ by less are equal: float32 knows them to some 2e-7.
TIE = 2e-6
# A sum of unit vectors whose square is less is what rounding has left of vectors that cancel out.
CANCELLED = 1e-12
# Pixels processed together, so that large maps need no copy in float64.
_PIECE = 1 << 16


@dataclass(frozen=True)
class Merged:
    """One map made of several, the members.

    Attributes:
        map: ``c h w``.
        uncertainty: ``1 h w``, 0 where all members agree; in the unit of the map, of vectors a share of 180 degrees.
        scale: float64 ``n``, what each member was multiplied by before all were merged: 1 for the anchor, positive, and
            0 for a member that contradicts the others. None where members were taken as they are, or it is not known.
        shift: float64 ``n``, what was added after that: 0 for the anchor. None like ``scale``.
    """

    map: Tensor
    uncertainty: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def median(members: Tensor) -> Merged:
    """Per pixel and channel the median of members as they are.

    Args:
        members: ``n c h w``, n at least 1, of any unit.

    Returns:
        The median and the median absolute deviation from it, averaged over channels, both in the unit of the
        members. Of an even number, a median is halfway between the middle two.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    _check(members)
    map = _median(members)
    return Merged(map, _median((members - map).abs()).mean(0, keepdim=True))


def affine(members: Tensor) -> Merged:
    """Merge maps that are each known up to their own scale and shift, as affine-invariant depth is.

    Model: member i is a_i x + b_i and noise, x the map that all have in common. Under equal noise the most likely
    a are the first principal axis of the members' covariance (Tipping and Bishop 1999). Every member becomes
    a_k / a_i (d_i - mean_i) + mean_k, where the anchor k has the largest a; median of those, stretched to [0, 1] by
    its own extremes (Marigold, Ke et al. 2024). Neither the order of members nor a scale and shift of all matters.

    A member that contradicts the others (reversed, unrelated, flat) gets the best scale that is not negative: 0. It
    has no part in the map, but counts in the uncertainty as a flat map. Of two members that contradict each other
    the one with more contrast is kept; where all are flat the map is 0.

    Args:
        members: ``n 1 h w``, n at least 1, in [0, 1] or any other unit.

    Returns:
        Map in [0, 1] and the median absolute deviation of the aligned members in its units, float32; scale and shift.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    _check(members, channels=1)
    mean, square = _moments(members)
    loading = _loadings(square - mean[:, None] * mean, square.diagonal().sqrt())
    anchor = loading.argmax()
    scale = torch.where(loading > 0, loading[anchor] / loading, 0.0)
    return _stretched(members, scale, mean[anchor] - scale * mean)


def scale_only(members: Tensor) -> Merged:
    """Merge maps that are each known up to their own scale and whose zero is a true one, as scale-invariant depth is.

    Like `affine` without the shift: moments are about 0, not about the mean, and the median is divided by its maximum
    and keeps its zero. A member of zeros gets the scale 0.

    Args:
        members: ``n 1 h w``, n at least 1, not negative.

    Returns:
        Map with maximum 1 and the median absolute deviation of the aligned members in its units, float32; the scale.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    _check(members, channels=1)
    _, square = _moments(members)
    loading = _loadings(square, square.diagonal().sqrt())
    scale = torch.where(loading > 0, loading.max() / loading, 0.0)
    return _stretched(members, scale, None)


def closest(members: Tensor) -> Merged:
    """Per pixel the member that is closest to the mean direction, so that edges stay as sharp as one member's.

    Args:
        members: unit vectors ``n 3 h w``, n at least 1.

    Returns:
        Unit vectors, and the mean angle between the members and their mean direction over 180 degrees, in [0, 1].
        Members equally close share the pixel: of two members it is always the mean. Where members cancel out, the
        mean direction is taken to face the viewer: (0, 0, 1).

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    mean, angle = _directions(members)
    # Rounding must not choose: two members are always equally close, and picking one by its last digit would
    # speckle the map with both.
    near = angle <= angle.min(0).values + TIE
    total = (members.float() * near).sum(0)
    shared = (total * total).sum(0, keepdim=True) > CANCELLED
    return Merged(unit(torch.where(shared, total, mean)), angle.mean(0) / math.pi)


def mean_direction(members: Tensor) -> Merged:
    """Per pixel the mean direction of unit vectors; arguments, uncertainty and errors are those of `closest`."""
    mean, angle = _directions(members)
    return Merged(mean, angle.mean(0) / math.pi)


@torch.no_grad()
def compat(
    members: Tensor,
    shift: bool = True,
    max_res: int = 1024,
    max_iter: int = 2,
    tol: float = 1e-3,
    regularizer: float = 0.02,
    reduction: str = "median",
) -> Merged:
    """The result of diffusers' ``MarigoldDepthPipeline.ensemble_depth``, which is called, to compare with.

    Scales and shifts are found by BFGS on the differences of all pairs of members, in some hundred times the time of
    `affine`; with many iterations they may collapse.

    Args:
        members: ``n 1 h w`` in [0, 1], n at least 1.
        shift: as `affine`; otherwise as `scale_only`.
        max_res: longest edge of the copies on which the search runs (GenPercept has 50).
        max_iter: iterations of the search.
        tol: its tolerance.
        regularizer: weight of what pulls the median to [0, 1].
        reduction: ``median``, with the median absolute deviation, or ``mean``, with the standard deviation. Of an even
            number, the median is the lower of the middle two.

    Returns:
        Map in [0, 1] and uncertainty in its units. Scale and shift stay inside diffusers: None.

    Raises:
        ValueError: no members, another shape, a member that is not finite, or another reduction.
    """
    _check(members, channels=1)
    if reduction not in ("median", "mean"):
        raise ValueError(f"members are reduced by median or mean, not {reduction!r}")
    from diffusers import MarigoldDepthPipeline  # takes seconds, and few ask for it

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


def _check(members: Tensor, channels: int | None = None) -> None:
    """ValueError for what is not ``n c h w`` with at least one member and pixel, or not finite."""
    if members.ndim != 4 or not members.numel() or members.shape[1] != (channels or members.shape[1]):
        raise ValueError(
            f"members to merge are n {channels or 'c'} h w with n at least 1, not {tuple(members.shape)}"
        )
    bad = [i for i, member in enumerate(members) if not bool(member.isfinite().all())]
    if bad:
        raise ValueError(
            f"members {bad} (of {len(members)}) are NaN or infinite somewhere; leave them out, "
            f"or mend what predicted them"
        )


def _median(members: Tensor) -> Tensor:
    """The median over the first dimension; of an even number, halfway between the middle two."""
    # Whole maps change places, in a sorting network: ten times as fast as torch's sort along a short dimension.
    rows = list(members.unbind(0))
    n = len(rows)
    for turn in range(n):
        for i in range(turn % 2, n - 1, 2):
            rows[i], rows[i + 1] = torch.minimum(rows[i], rows[i + 1]), torch.maximum(rows[i], rows[i + 1])
    return (rows[(n - 1) // 2] + rows[n // 2]) / 2


def _moments(members: Tensor) -> tuple[Tensor, Tensor]:
    """Over the pixels of members ``n 1 h w``: means (n) of d_i and (n n) of d_i d_j, float64 on the CPU."""
    flat = members.detach().flatten(1)
    n, count = flat.shape
    total = torch.zeros(n, n + 1, dtype=torch.float64)
    for piece in flat.split(_PIECE, dim=1):
        piece = piece.cpu().double()
        total[:, :n] += piece @ piece.T
        total[:, n] += piece.sum(1)
    return total[:, n] / count, total[:, :n] / count


def _principal(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix: the first principal axis, times the square root of its variance."""
    values, axes = torch.linalg.eigh(matrix)
    return axes[:, -1] * values[-1].clamp(min=0).sqrt()


def _loadings(covariance: Tensor, size: Tensor) -> Tensor:
    """How much of the common map is in each of n members: n, in units of the members, 0 for one to be left out.

    Which members agree is decided by correlations, so that a lone member of high contrast does not outvote
    several of low contrast; how much, by the covariance of those which do.

    Args:
        covariance: ``n n``, of centred or uncentred members.
        size: ``n``, root mean squares: what rounding errors are relative to.
    """
    spread = covariance.diagonal().clamp(min=0).sqrt()
    alive = (spread > FLAT * spread.max()) & (spread > 1e-6 * size)
    if not alive.any():
        return torch.ones_like(spread)
    unit_variance = torch.where(alive, 1 / spread, 0.0)
    common = _principal(covariance * unit_variance * unit_variance[:, None])
    votes = common.sum()
    if votes.abs() < 1e-6:  # as many for as against, all with one weight: contrast decides
        votes = common @ spread
    common = common * (-1 if votes < 0 else 1)
    kept = common > min(LEAST, float(common.max()) * (1 - 1e-9))
    loading = torch.zeros_like(spread)
    axis = _principal(covariance[kept][:, kept])
    loading[kept] = torch.maximum(axis * axis.sum().sign(), LEAST * spread[kept])
    return loading


def _stretched(members: Tensor, scale: Tensor, shift: Tensor | None) -> Merged:
    """The median of aligned members stretched to [0, 1]; without a shift only its maximum becomes 1."""
    column = (-1, 1, 1, 1)
    aligned = members.float() * scale.to(members.device, torch.float32).view(column)
    if shift is not None:
        aligned = aligned + shift.to(members.device, torch.float32).view(column)
    middle = _median(aligned[(scale > 0).to(members.device)])
    low = middle.new_zeros(()) if shift is None else middle.min()
    extent = middle.max() - low
    extent = torch.where(extent > 0, extent, 1.0)  # a flat map stays flat
    return Merged((middle - low) / extent, _median((aligned - middle).abs()) / extent, scale, shift)


def _directions(members: Tensor) -> tuple[Tensor, Tensor]:
    """Of unit vectors ``n 3 h w``: their mean direction ``3 h w``, and the angles to it ``n 1 h w`` in radians."""
    _check(members, channels=3)
    members = members.float()
    mean = members.mean(0)
    viewer = mean.new_tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1)
    mean = unit(torch.where((mean * mean).sum(0, keepdim=True) > CANCELLED, mean, viewer))
    apart, together = ((members + sign * mean).square().sum(1, keepdim=True).sqrt() for sign in (-1, 1))
    return mean, 2 * torch.atan2(apart, together)  # the arc cosine loses half the digits near 0


# By the names that settings have for them.
MERGES: dict[str, Callable[[Tensor], Merged]] = {
    "affine": affine,
    "scale": scale_only,
    "compat": compat,
    "closest": closest,
    "mean": mean_direction,
    "median": median,
}
