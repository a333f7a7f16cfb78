"""Checks of depth predictions that are aligned before they are scored: their sign and their space.

Least squares on scale and shift hides errors of both: negated depth gets a negative scale and the score of the right
one, inverse depth nearly that score. Diagnostics of each image are stored in its row; the report has warnings for the
whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..geometry import align_affine
from ..predict.prediction import SPACES
from ..sample import Sample
from ..targets import target_spec
from ..tasks import TASKS
from .measure import resize_to_target, truth
from .protocol import EvalProtocol
from .rows import Row

# Pixels of an image that are used, evenly spaced: enough for a sign and a median.
PIXELS = 65536
# Another space is suspected where its median relative error is below this share of the protocol's own, and by more
# than `GAP`: predictions that are good in both spaces differ by less.
SHARE, GAP = 0.5, 0.01

# Metres to the numbers of each space.
_FROM_METRES: dict[str, Callable[[Tensor], Tensor]] = {
    "depth": lambda d: d,
    "disparity": torch.reciprocal,
    "sqrt_disparity": torch.rsqrt,
    "log_depth": torch.log,
}


def uses_alignment(protocol: EvalProtocol) -> bool:
    """Whether a protocol aligns depth before scoring."""
    return target_spec(protocol.target).is_distance and protocol.align != "none"


def fitted_scale(prediction: Tensor, target: Tensor, valid: Tensor, space: str) -> float:
    """The scale of the least-squares fit of a map to metres in ``space``: negative where depth is inverted.

    0 for a constant map, whose scale is not determined.

    Args:
        prediction: one image's map ``1 h w`` in ``space``, up to scale and shift.
        target: metres ``1 h w``.
        valid: bool ``1 h w`` with at least one valid pixel.
        space: one of `prediction.SPACES`.

    Raises:
        ValueError: one of the valid pixels is NaN or infinite.
    """
    if float(prediction[valid].min()) == float(prediction[valid].max()):
        return 0.0
    known = torch.where(valid, target, 1.0).double()
    return align_affine(prediction, _FROM_METRES[space](known), valid)[0]


def fit_diagnostics(prediction: Tensor, sample: Sample, protocol: EvalProtocol) -> dict[str, Any]:
    """The ``scale`` of the fit in the protocol's own space, and the median relative ``error`` after a fit in each.

    Args:
        prediction: ``1 h w`` before alignment.
        sample: with valid truth somewhere.
        protocol: how it is scored; the result is {} where it aligns nothing.
    """
    if not uses_alignment(protocol):
        return {}
    target, valid = truth(sample, protocol)
    p, d = (x[valid] for x in (resize_to_target(prediction, target, protocol.target), target))
    step = -(-len(p) // PIXELS)
    p, d = (x[::step].double().reshape(1, 1, -1) for x in (p, d))
    known = torch.ones_like(d, dtype=torch.bool)
    scale = fitted_scale(p, d, known, protocol.spaces[0])
    # The fit of disparity leaves out values that are not positive; other fits do not depend on a shift.
    p = p - p.min() + 1
    errors = {space: float(((TASKS[space].align(p, d, known) - d).abs() / d).median()) for space in SPACES}
    return {"scale": float(f"{scale:.6g}"), "error": {k: float(f"{v:.6g}") for k, v in errors.items()}}


def fit_warnings(rows: Sequence[Row], protocol: EvalProtocol) -> list[str]:
    """Warnings of a set: negative scales, and another space that fits much better."""
    fits: list[Mapping[str, Any]] = [row["fit"] for row in rows if row["status"] == "done" and "fit" in row]
    if not fits:
        return []
    own, found = protocol.spaces[0], []
    negative = sum(fit["scale"] < 0 for fit in fits)
    if negative:
        found.append(
            f"the scale fitted to {own.replace('_', ' ')} is negative in {negative} of {len(fits)} images: the "
            "prediction is inverted there, which the alignment hides from the scores; negate or invert it"
        )
    medians = {space: _median([fit["error"][space] for fit in fits]) for space in SPACES}
    best = min(medians, key=lambda space: medians[space])
    if medians[best] < SHARE * medians[own] and medians[own] - medians[best] > GAP:
        other, expected = best.replace("_", " "), own.replace("_", " ")
        found.append(
            f"fitted as {other} the predictions have a median relative error of {medians[best]:.3f}, as {expected} one "
            f"of {medians[own]:.3f}: are they {other}? Choose the --protocol of that space"
        )
    return found


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
