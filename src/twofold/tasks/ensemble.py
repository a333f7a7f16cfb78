"""Ensembles: several predictions (members) of one image merged into one map with an uncertainty.

Maps known up to scale and shift are first aligned by their second moments, in closed form: one pass over the pixels,
then algebra on n x n matrices. One member, the anchor, keeps its scale and shift, and the others are aligned to it, so
the scales cannot collapse to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import unit

# Members whose correlation with the common map is lower (r^2 < 0.09) are excluded.
MIN_CORRELATION = 0.3
# Members with less contrast than this share of the highest count as flat: scaling would amplify rounding errors.
FLAT = 1e-3
# Angles in radians that differ by less are equal; float32 resolves about 2e-7.
TIE = 2e-6
# Unit vectors whose sum has a smaller squared length cancel out, up to rounding.
CANCELLED = 1e-12
# Pixels processed together, so that large maps need no copy in float64.
_PIECE = 1 << 16


@dataclass(frozen=True)
class Merged:
    """The merged map of an ensemble.

    Attributes:
        map: ``c h w``.
        uncertainty: ``1 h w``, 0 where all members agree; in the unit of the map, for vectors a share of 180 degrees.
        scale: float64 ``n``, factor that aligns each member: 1 for the anchor, positive, or 0 for a member that
            contradicts the others. None where members were not aligned, or the factors are not known.
        shift: float64 ``n``, added after scaling: 0 for the anchor. None like ``scale``.
    """

    map: Tensor
    uncertainty: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def median(members: Tensor) -> Merged:
    """Median of the members per pixel and channel, without alignment.

    Args:
        members: ``n c h w``, n at least 1, of any unit.

    Returns:
        The median and the median absolute deviation from it, averaged over channels, both in the unit of the
        members. For an even number of members a median is the mean of the middle two.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    check_members(members)
    map = _median(members)
    return Merged(map, _median((members - map).abs()).mean(0, keepdim=True))


def affine(members: Tensor) -> Merged:
    """Merge maps that are each known up to scale and shift, such as affine-invariant depth.

    Model: member i is a_i x + b_i plus noise, where x is the map common to all. Under equal noise the maximum
    likelihood a is the first principal axis of the members' covariance (Tipping and Bishop 1999). Member i is aligned
    to a_k / a_i (d_i - mean_i) + mean_k, where the anchor k has the largest a. The result is the median of the aligned
    members, min-max normalized to [0, 1] (Marigold, Ke et al. 2024). It does not depend on the order of the members,
    nor on a common scale and shift.

    A member that contradicts the others (reversed, unrelated, flat) gets the scale 0, the best that is not negative. It
    does not contribute to the map, but counts in the uncertainty as a flat map. Of two members that contradict each
    other the one with more contrast is kept; the map is 0 if all are flat.

    Args:
        members: ``n 1 h w``, n at least 1, in [0, 1] or any other unit.

    Returns:
        Map in [0, 1] and the median absolute deviation of the aligned members in its units, float32; scale and shift.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    check_members(members, channels=1)
    mean, square = _moments(members)
    loading = _loadings(square - mean[:, None] * mean, square.diagonal().sqrt())
    anchor = loading.argmax()
    scale = torch.where(loading > 0, loading[anchor] / loading, 0.0)
    return _normalized_median(members, scale, mean[anchor] - scale * mean)


def scale_only(members: Tensor) -> Merged:
    """Merge maps that are each known up to scale, with an absolute zero, such as scale-invariant depth.

    Like `affine` without the shift: moments are about 0 instead of the mean, and the median is divided by its maximum.
    A member of zeros gets the scale 0.

    Args:
        members: ``n 1 h w``, n at least 1, not negative.

    Returns:
        Map with maximum 1 and the median absolute deviation of the aligned members in its units, float32; the scale.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    check_members(members, channels=1)
    _, square = _moments(members)
    loading = _loadings(square, square.diagonal().sqrt())
    scale = torch.where(loading > 0, loading.max() / loading, 0.0)
    return _normalized_median(members, scale, None)


def closest(members: Tensor) -> Merged:
    """Per pixel the member that is closest to the mean direction, which keeps edges as sharp as those of one member.

    Args:
        members: unit vectors ``n 3 h w``, n at least 1.

    Returns:
        Unit vectors, and the mean angle between the members and their mean direction over 180 degrees, in [0, 1].
        Equally close members are averaged, so the result for two members is their mean. Where members cancel out, the
        mean direction is (0, 0, 1), towards the viewer.

    Raises:
        ValueError: no members, another shape, or a member that is not finite.
    """
    mean, angle = _directions(members)
    # With a tolerance: two members are always equally close, and rounding errors would select either at random.
    near = angle <= angle.min(0).values + TIE
    total = (members.float() * near).sum(0)
    shared = (total * total).sum(0, keepdim=True) > CANCELLED
    return Merged(unit(torch.where(shared, total, mean)), angle.mean(0) / math.pi)


def mean_direction(members: Tensor) -> Merged:
    """Per pixel the mean direction of unit vectors; arguments, uncertainty and errors are those of `closest`."""
    mean, angle = _directions(members)
    return Merged(mean, angle.mean(0) / math.pi)


def check_members(members: Tensor, channels: int | None = None) -> None:
    """ValueError unless members are ``n c h w`` with at least one member and pixel, and finite."""
    if members.ndim != 4 or not members.numel() or members.shape[1] != (channels or members.shape[1]):
        raise ValueError(
            f"members to merge are n {channels or 'c'} h w with n at least 1, not {tuple(members.shape)}"
        )
    bad = [i for i, member in enumerate(members) if not bool(member.isfinite().all())]
    if bad:
        raise ValueError(
            f"members {bad} (of {len(members)}) have NaN or infinite values; exclude them, or fix the predictor"
        )


def _median(members: Tensor) -> Tensor:
    """The median over the first dimension; the mean of the middle two for an even number."""
    # A sorting network of whole maps: ten times as fast as torch's sort along a short dimension.
    rows = list(members.unbind(0))
    n = len(rows)
    for turn in range(n):
        for i in range(turn % 2, n - 1, 2):
            rows[i], rows[i + 1] = torch.minimum(rows[i], rows[i + 1]), torch.maximum(rows[i], rows[i + 1])
    return (rows[(n - 1) // 2] + rows[n // 2]) / 2


def _moments(members: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moments of members ``n 1 h w`` over pixels: means of d_i (n) and of d_i d_j (n n), float64."""
    flat = members.detach().flatten(1)
    n, count = flat.shape
    total = torch.zeros(n, n + 1, dtype=torch.float64)
    for piece in flat.split(_PIECE, dim=1):
        piece = piece.cpu().double()
        total[:, :n] += piece @ piece.T
        total[:, n] += piece.sum(1)
    return total[:, n] / count, total[:, :n] / count


def _principal(matrix: Tensor) -> Tensor:
    """The first principal axis of a symmetric matrix, times the square root of its eigenvalue."""
    values, axes = torch.linalg.eigh(matrix)
    return axes[:, -1] * values[-1].clamp(min=0).sqrt()


def _loadings(covariance: Tensor, size: Tensor) -> Tensor:
    """The factor a_i of the common map in each member: ``n``, in units of the members, 0 for excluded members.

    Correlations decide which members agree, so that a single member of high contrast does not outweigh several of low
    contrast. The factors come from the covariance of the members that agree.

    Args:
        covariance: ``n n``, second moments of centred or uncentred members.
        size: ``n``, root mean squares of the members, the reference for rounding errors.
    """
    spread = covariance.diagonal().clamp(min=0).sqrt()
    alive = (spread > FLAT * spread.max()) & (spread > 1e-6 * size)
    if not alive.any():
        return torch.ones_like(spread)
    unit_variance = torch.where(alive, 1 / spread, 0.0)
    common = _principal(covariance * unit_variance * unit_variance[:, None])
    votes = common.sum()
    if votes.abs() < 1e-6:  # a tie of equally correlated members: decide by contrast
        votes = common @ spread
    common = common * (-1 if votes < 0 else 1)
    kept = common > min(MIN_CORRELATION, float(common.max()) * (1 - 1e-9))
    loading = torch.zeros_like(spread)
    axis = _principal(covariance[kept][:, kept])
    loading[kept] = torch.maximum(axis * axis.sum().sign(), MIN_CORRELATION * spread[kept])
    return loading


def _normalized_median(members: Tensor, scale: Tensor, shift: Tensor | None) -> Merged:
    """The median of aligned members, min-max normalized, or divided by its maximum if ``shift`` is None."""
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
    """Mean direction ``3 h w`` of unit vectors ``n 3 h w``, and the angles to it ``n 1 h w`` in radians."""
    check_members(members, channels=3)
    members = members.float()
    mean = members.mean(0)
    viewer = mean.new_tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1)
    mean = unit(torch.where((mean * mean).sum(0, keepdim=True) > CANCELLED, mean, viewer))
    apart, together = ((members + sign * mean).square().sum(1, keepdim=True).sqrt() for sign in (-1, 1))
    return mean, 2 * torch.atan2(apart, together)  # the arc cosine is inaccurate near 0
