"""How a prediction of depth is fitted to the truth before it is scored: name it beside every number, never mix.

All take one image's prediction, its truth in metres and where that is known (1 h w each), and a clip in metres, and
give metres, float64 1 h w, no less than SMALLEST_DEPTH; all raise ValueError when no pixel is valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from twofold.metrics.depth import SMALLEST_DEPTH, affine_aligned, clipped, disparity_aligned

Clip = tuple[float, float]
ANYTHING: Clip = (SMALLEST_DEPTH, math.inf)

# What the pictures of usual benchmarks may hold, in metres: truth counts strictly between (DIODE: all of it) and
# predictions are clipped to it.
CAPS: dict[str, Clip] = {
    "nyu": (1e-3, 10.0),
    "scannet": (1e-3, 10.0),
    "kitti": (1e-5, 80.0),
    "diode": (0.6, 350.0),
    "eth3d": (1e-5, math.inf),
}


def within_caps(depth: Tensor, caps: Clip) -> Tensor:
    """Where a truth (metres, any shape) lies strictly between: bool. Never where it is NaN."""
    return (depth > caps[0]) & (depth < caps[1])


def unaligned(prediction: Tensor, target: Tensor, valid: Tensor, clip: Clip = ANYTHING) -> Tensor:
    """A prediction in metres as it is, clipped."""
    _known(prediction, target, valid)
    return clipped(prediction.double(), clip)


def scale_aligned(prediction: Tensor, target: Tensor, valid: Tensor, clip: Clip = ANYTHING) -> Tensor:
    """One factor by least squares on depth, sum pd / sum p^2. ValueError when the prediction is 0 everywhere."""
    p, d = _known(prediction, target, valid)
    return clipped(prediction.double() * _factor((p * d).sum(), (p * p).sum()), clip)


def median_aligned(prediction: Tensor, target: Tensor, valid: Tensor, clip: Clip = ANYTHING) -> Tensor:
    """The median of the truth over that of the prediction (Zhou et al. 2017 and self-supervised depth since).

    Of an even number of pixels the median is halfway between the middle two, as numpy has it.
    ValueError when the prediction's median is 0.
    """
    p, d = _known(prediction, target, valid)
    return clipped(prediction.double() * _factor(_median(d), _median(p)), clip)


def moments_aligned(prediction: Tensor, target: Tensor, valid: Tensor, clip: Clip = ANYTHING) -> Tensor:
    """Median and mean absolute deviation from it, made those of the truth (Ranftl et al. 2020, eq. 5 and 6).

    Robust, in closed form, and not a best fit of anything. The scale is never negative. A constant
    prediction becomes the truth's median.
    """
    p, d = _known(prediction, target, valid)
    middle_p, middle_d = _median(p), _median(d)
    spread_p, spread_d = (p - middle_p).abs().mean(), (d - middle_d).abs().mean()
    scale = spread_d / spread_p if float(spread_p) > 0 else torch.zeros_like(spread_d)
    return clipped((prediction.double() - middle_p) * scale + middle_d, clip)


def l1_aligned(prediction: Tensor, target: Tensor, valid: Tensor, clip: Clip = ANYTHING) -> Tensor:
    """Scale and shift that minimise sum |s p + t - d| over the valid pixels: wrong truth and far pixels pull less.

    The scale may come out negative. A constant prediction becomes the truth's median. The scale is exact to 12
    digits; some 0.3 s for 300,000 pixels.
    """
    scale, shift = l1_line(*_known(prediction, target, valid))
    return clipped(prediction.double() * scale + shift, clip)


def l1_line(p: Tensor, d: Tensor) -> tuple[float, float]:
    """The (scale, shift) that minimise sum |scale p + shift - d|, of two float64 vectors.

    For a given scale the best shift is the median of what is left, so the sum is a convex function of the scale
    alone, and the sign of its slope says on which side of the best one a scale is.
    """
    centred = p - p.mean()
    size = float(centred.abs().max())
    if size <= 1e-12 * float(p.abs().max()):
        return 0.0, float(_median(d))
    from scipy.optimize import brentq

    # Start at least squares and widen until the slope changes its sign.
    low = high = float((centred * (d - d.mean())).sum() / centred.square().sum())
    unit = float((d - d.mean()).abs().max()) / size + 1e-300
    step = unit / 64
    falling = _slope(low, p, d) < 0
    while (_slope(high if falling else low, p, d) < 0) == falling and step < math.inf:
        low, high = (high, high + step) if falling else (low - step, low)
        step *= 4
    ends = _slope(low, p, d), _slope(high, p, d)
    scale = low if ends[0] == 0 else high
    if ends[0] * ends[1] < 0:
        scale = brentq(_slope, low, high, args=(p, d), xtol=1e-13 * unit, rtol=1e-12)
    return float(scale), float(_median(d - scale * p))


def _slope(scale: float, p: Tensor, d: Tensor) -> float:
    """The derivative by the scale of the least sum over shifts (one of them, where it has a corner)."""
    left = d - scale * p
    sign = torch.sign(left - _median(left))
    # Pixels on the line share what is missing for the signs to add up to nothing, as the best shift demands.
    on = sign == 0
    if bool(on.any()):
        sign[on] = -sign.sum() / on.sum()
    return -float((p * sign).sum())


def fit_grid(height: int, width: int, longest: int, width_only: bool = False) -> Tensor:
    """Which pixels a fit sees when its maps are first shrunk to `longest` on their longer edge, bool 1 h w.

    Pass ``valid & fit_grid(...)`` to an alignment: it is still applied to the whole map. Every k-th row and column,
    the nearest. With `width_only`, rows are all kept: Marigold's program means to shrink both edges and shrinks one
    (its numbers for ETH3D come from 4032 x 1024 pixels).
    """
    factor = min(1.0, longest / max(height, width))

    def kept(n: int) -> Tensor:
        places = torch.arange(n, dtype=torch.float64)[None, None]
        at = (
            interpolate(places, scale_factor=factor, mode="nearest")[0, 0].long()
            if factor < 1
            else places.long()
        )
        mask = torch.zeros(n, dtype=torch.bool)
        mask[at.flatten()] = True
        return mask

    rows = torch.ones(height, dtype=torch.bool) if width_only else kept(height)
    return (rows[:, None] & kept(width))[None]


def _known(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid pixels (n) of both, float64. ValueError when there are none, or one is not finite."""
    p, d = prediction[valid].double(), target[valid].double()
    if p.numel() == 0:
        raise ValueError("no valid pixel to align to; leave this image out and count it")
    if not (bool(p.isfinite().all()) and bool(d.isfinite().all())):
        raise ValueError("a valid pixel is NaN or infinite; mask it, or mend what predicted it")
    return p, d


def _factor(above: Tensor, below: Tensor) -> float:
    if float(below) == 0:
        raise ValueError("the prediction is 0 where it is to be scaled; it fits no depth")
    return float(above / below)


def _median(x: Tensor) -> Tensor:
    """Of an even number, halfway between the middle two. By numpy, whose selection is linear and fast."""
    import numpy as np

    return x.new_tensor(float(np.median(x.cpu().numpy())))


ALIGNMENTS: dict[str, Callable[[Tensor, Tensor, Tensor, Clip], Tensor]] = {
    "none": unaligned,
    "affine": affine_aligned,
    "disparity": disparity_aligned,
    "scale": scale_aligned,
    "median": median_aligned,
    "moments": moments_aligned,
    "l1": l1_aligned,
}
