"""Checks of the sign and the space (depth, disparity, ...) of predictions that are aligned before they are scored.

A least-squares fit of scale and shift hides both errors: negated depth gets a negative scale and the score of correct
depth, and inverse depth nearly that score. Diagnostics of each image are stored in its row; the report has warnings
for the whole set.
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

# Number of evenly spaced pixels of an image that are used, which suffices for a sign and a median.
PIXELS = 65536
# A warning is given if the median relative error in another space is below this fraction of the error in the
# protocol's space, and smaller by more than this gap. Accurate predictions differ by less.
MAX_ERROR_RATIO, MIN_ERROR_GAP = 0.5, 0.01

# Functions from metres to the values of each space.
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
    """The scale of the least-squares fit of a map to the truth in ``space``; negative if near and far are swapped.

    It is 0 for a constant map, whose scale is not determined.

    Args:
        prediction: map ``1 h w`` in ``space``, up to scale and shift.
        target: true depth ``1 h w`` in metres.
        valid: bool ``1 h w`` with at least one valid pixel.
        space: one of `prediction.SPACES`.

    Raises:
        ValueError: a valid pixel of the prediction is NaN or infinite.
    """
    if float(prediction[valid].min()) == float(prediction[valid].max()):
        return 0.0
    known = torch.where(valid, target, 1.0).double()
    return align_affine(prediction, _FROM_METRES[space](known), valid)[0]


def fit_diagnostics(prediction: Tensor, sample: Sample, protocol: EvalProtocol) -> dict[str, Any]:
    """The fitted ``scale`` in the protocol's space, and the median relative ``error`` after a fit in each space.

    Args:
        prediction: map ``1 h w`` before alignment.
        sample: a sample with at least one valid pixel.
        protocol: the protocol; the result is {} if it has no alignment.
    """
    if not uses_alignment(protocol):
        return {}
    target, valid = truth(sample, protocol)
    p, d = (x[valid] for x in (resize_to_target(prediction, target, protocol.target), target))
    step = -(-len(p) // PIXELS)
    p, d = (x[::step].double().reshape(1, 1, -1) for x in (p, d))
    known = torch.ones_like(d, dtype=torch.bool)
    scale = fitted_scale(p, d, known, protocol.spaces[0])
    # The fit of disparity excludes values that are not positive; other fits do not depend on a shift.
    p = p - p.min() + 1
    errors = {space: float(((TASKS[space].align(p, d, known) - d).abs() / d).median()) for space in SPACES}
    return {"scale": float(f"{scale:.6g}"), "error": {k: float(f"{v:.6g}") for k, v in errors.items()}}


def fit_warnings(rows: Sequence[Row], protocol: EvalProtocol) -> list[str]:
    """Warnings about negative scales, and about another space in which the predictions fit much better."""
    fits: list[Mapping[str, Any]] = [row["fit"] for row in rows if row["status"] == "done" and "fit" in row]
    if not fits:
        return []
    own, warnings = protocol.spaces[0], []
    negative = sum(fit["scale"] < 0 for fit in fits)
    if negative:
        warnings.append(
            f"the scale fitted to {own.replace('_', ' ')} is negative in {negative} of {len(fits)} images: the "
            "prediction is inverted there, which the alignment hides from the scores; negate or invert it"
        )
    medians = {space: _median([fit["error"][space] for fit in fits]) for space in SPACES}
    best = min(medians, key=lambda space: medians[space])
    if medians[best] < MAX_ERROR_RATIO * medians[own] and medians[own] - medians[best] > MIN_ERROR_GAP:
        other, expected = best.replace("_", " "), own.replace("_", " ")
        warnings.append(
            f"fitted as {other} the predictions have a median relative error of {medians[best]:.3f}, as {expected} one "
            f"of {medians[own]:.3f}: are they {other}? Choose the --protocol of that space"
        )
    return warnings


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
