"""Metrics of dichotomous and salient object segmentation, as published in that field.

g is the true foreground (grey level above 128 of 255), p in [0, 1] the predicted foreground probability of a pixel.
Published scores are computed on predictions that are min-max normalized per image, so a map of the values 0.8 and
0.2 has no error. Thresholds are the 256 grey levels, t / 255 for t = 0 .. 255; a pixel is foreground when p >= t / 255.

Curves over thresholds are summed over images, so the maximum of a mean curve needs one pass. Invalid pixels do not
count; S-measure and weighted F, which need a whole image, count them as correctly predicted background.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from twofold.metrics.metric import Metric, MetricInput, mean_over_images, vector
from twofold.metrics.structure import TINY, s_measure, weighted_f

# beta squared of the F-score (Achanta et al. 2009): precision has more weight than recall.
BETA2 = 0.3
LEVELS = 256
# Between the grey levels 128 and 129, so that float32 rounding has no effect.
FOREGROUND = 128.5 / 255

# One image -> p (n) at its valid pixels.
Normalize = Callable[[MetricInput], Tensor]


def saliency_metrics(minmax: bool = True) -> dict[str, Metric]:
    """The metrics by name; `minmax` normalizes each prediction to [0, 1] first, as published.

    max_f           maximum over thresholds of the images' mean F curve (PySODMetrics, Fan's toolbox)
    max_f_of_means  F of the mean precision and the mean recall, its maximum over thresholds (IS-Net)
    max_f_by_image  mean of each image's maximum: at least max_f (some papers on high resolution)
    mean_f          mean of F over thresholds and images
    adaptive_f      F at twice the mean of p, at most 1
    weighted_f      `structure.weighted_f`
    mae             mean of |p - g|
    s_measure       `structure.s_measure`
    mean_e, max_e, adaptive_e  `e_curve`, as for F. A perfect map of n pixels has n / (n - 1), more than 1.
    cc              Pearson correlation with the soft target; an image where either map is constant is skipped

    Measuring raises ValueError when a prediction that is not normalized has values outside [0, 1].
    """
    normalize = minmax_normalized if minmax else unnormalized
    counts = partial(_counts, normalize)
    f, e = partial(_f_curve, counts), partial(_e_curve, counts)
    rates = partial(_rates, counts)
    found = (
        Metric("max_f", "", "higher", partial(_curve, f, LEVELS), _highest),
        Metric("max_f_of_means", "", "higher", partial(_curve, rates, 2 * LEVELS), _highest_f_of_means),
        mean_over_images("max_f_by_image", "", "higher", partial(_max, f)),
        mean_over_images("mean_f", "", "higher", partial(_mean, f)),
        mean_over_images("adaptive_f", "", "higher", partial(_adaptive_f, normalize)),
        mean_over_images("weighted_f", "", "higher", partial(_on_images, normalize, weighted_f)),
        mean_over_images("mae", "", "lower", partial(_mae, normalize)),
        mean_over_images("s_measure", "", "higher", partial(_on_images, normalize, s_measure)),
        mean_over_images("mean_e", "", "higher", partial(_mean, e)),
        Metric("max_e", "", "higher", partial(_curve, e, LEVELS), _highest),
        mean_over_images("adaptive_e", "", "higher", partial(_adaptive_e, normalize)),
        mean_over_images("cc", "", "higher", _correlation),
    )
    return {m.name: m for m in found}


# ---- predictions


def minmax_normalized(inputs: MetricInput) -> Tensor:
    """p, min-max normalized over this image; a constant map is unchanged."""
    p = inputs.cached(_dequantized)
    low, high = p.min(), p.max()
    return _checked(p if low == high else (p - low) / (high - low))


def unnormalized(inputs: MetricInput) -> Tensor:
    """p unchanged. ValueError when it is not in [0, 1]."""
    return _checked(inputs.cached(_dequantized))


def foreground(inputs: MetricInput) -> Tensor:
    """True where a valid pixel belongs to the true foreground, bool n."""
    return inputs.d.flatten() > FOREGROUND


def _dequantized(inputs: MetricInput) -> Tensor:
    """p in float64; grey levels k / 255 that were rounded to float32 are restored.

    Otherwise half of the levels would be slightly below their own threshold.
    """
    p = inputs.p.flatten()
    if inputs.prediction.dtype == torch.float64:
        return p
    level = (p * 255).round() / 255
    return torch.where(level.to(inputs.prediction.dtype).double() == p, level, p)


def _checked(p: Tensor) -> Tensor:
    low, high = float(p.min()), float(p.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(f"a mask has values from {low:g} to {high:g}; expected [0, 1]")
    return p


# ---- curves over thresholds


def _counts(normalize: Normalize, inputs: MetricInput) -> tuple[Tensor, Tensor, int, int]:
    """True and false positives (256 each) at p >= t / 255, then the number of pixels inside and outside g."""
    # Truncated: the level of p is the largest t with p >= t / 255.
    level = (inputs.cached(normalize) * 255).long()
    g = inputs.cached(foreground)
    both = torch.bincount(level + LEVELS * g.long(), minlength=2 * LEVELS).double()
    false, true = (part.flip(0).cumsum(0).flip(0) for part in both.split(LEVELS))
    inside = int(g.sum())
    return true, false, inside, len(g) - inside


def _rates(counts: Callable[[MetricInput], tuple], inputs: MetricInput) -> Tensor:
    """Precision, then recall (512); 0 where there are no positives."""
    true, false, inside, _ = inputs.cached(counts)
    return torch.cat([true / (true + false).clamp(min=1), true / max(inside, 1)])


def _f_curve(counts: Callable[[MetricInput], tuple], inputs: MetricInput) -> Tensor:
    return f_score(*_rates(counts, inputs).split(LEVELS))


def f_score(precision: Tensor, recall: Tensor, beta2: float = BETA2) -> Tensor:
    """The weighted harmonic mean of precision and recall; 0 where both are 0, NaN where either is NaN."""
    denominator = beta2 * precision + recall
    return torch.where(denominator == 0, 0.0, (1 + beta2) * precision * recall / denominator)


def _e_curve(counts: Callable[[MetricInput], tuple], inputs: MetricInput) -> Tensor:
    return e_curve(*inputs.cached(counts))


def e_curve(true: Tensor, false: Tensor, inside: int, outside: int) -> Tensor:
    """The enhanced-alignment measure (Fan et al. 2018) at each threshold, from counts.

    Args:
        true: true positives, ``t``.
        false: false positives, ``t``.
        inside: number of true foreground pixels.
        outside: number of true background pixels.
    """
    total = inside + outside
    predicted = true + false
    # Over n - 1, as in the authors' code.
    scale = 1 / (total - 1 + TINY)
    if inside == 0 or outside == 0:
        return (predicted if outside == 0 else total - predicted) * scale
    mean_p, mean_g = predicted / total, inside / total
    parts = ((1, 1, true), (1, 0, false), (0, 1, inside - true), (0, 0, outside - false))
    return scale * sum((count * _aligned(p - mean_p, g - mean_g) for p, g, count in parts), torch.zeros(()))


def _aligned(a: Tensor, b: float) -> Tensor:
    """Alignment of two centred values, from 0 (opposite) to 1 (equal)."""
    return (2 * a * b / (a * a + b * b + TINY) + 1).square() / 4


def _curve(of: Callable[[MetricInput], Tensor], length: int, inputs: MetricInput) -> Tensor:
    """[curve, images, skipped]."""
    return vector(inputs.cached(of), 1, 0) if inputs.count else vector(torch.zeros(length), 0, 1)


def _highest(total: Tensor) -> float:
    return float((total[:-2] / total[-2]).max())


def _highest_f_of_means(total: Tensor) -> float:
    precision, recall = (total[:-2] / total[-2]).chunk(2)
    return float(f_score(precision, recall).max())


def _max(curve: Callable[[MetricInput], Tensor], inputs: MetricInput) -> Tensor:
    return inputs.cached(curve).max()


def _mean(curve: Callable[[MetricInput], Tensor], inputs: MetricInput) -> Tensor:
    return inputs.cached(curve).mean()


# ---- numbers


def _at_twice_the_mean(normalize: Normalize, inputs: MetricInput) -> tuple[Tensor, Tensor, int, int]:
    """`_counts` at one threshold, twice the mean of p (at most 1)."""
    p, g = inputs.cached(normalize), inputs.cached(foreground)
    predicted = p >= min(2 * float(p.mean()), 1.0)
    true, inside = (predicted & g).sum().double(), int(g.sum())
    return true[None], predicted.sum().double()[None] - true, inside, len(g) - inside


def _adaptive_f(normalize: Normalize, inputs: MetricInput) -> Tensor:
    true, false, inside, _ = _at_twice_the_mean(normalize, inputs)
    return f_score(true / (true + false).clamp(min=1), true / max(inside, 1))


def _adaptive_e(normalize: Normalize, inputs: MetricInput) -> Tensor:
    return e_curve(*_at_twice_the_mean(normalize, inputs))


def _mae(normalize: Normalize, inputs: MetricInput) -> Tensor:
    return (inputs.cached(normalize) - inputs.cached(foreground).double()).abs().mean()


def _on_images(normalize: Normalize, score: Callable, inputs: MetricInput) -> float:
    p = inputs.scatter(inputs.cached(normalize)[None])[0].numpy()
    return score(p, inputs.scatter(inputs.cached(foreground)[None])[0].bool().numpy())


def _correlation(inputs: MetricInput) -> float:
    maps = inputs.p.flatten(), inputs.d.flatten()
    if any(float(x.min()) == float(x.max()) for x in maps):
        return float("nan")
    p, d = (x - x.mean() for x in maps)
    return float((p * d).sum() / (p.square().sum() * d.square().sum()).sqrt())


# As published: min-max normalized.
SALIENCY: dict[str, Metric] = saliency_metrics()
