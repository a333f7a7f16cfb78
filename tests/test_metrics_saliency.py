"""Dichotomous and salient segmentation: by hand, and against PySODMetrics (`scripts/sod_golden.py`)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from blobs import blobs
from twofold.metrics import (
    HCE,
    MASKS,
    SALIENCY,
    Metric,
    human_correction_effort,
    measure_many,
    saliency_metrics,
    skipped,
)

RAW = saliency_metrics(minmax=False)

# Printed by scripts/sod_golden.py: PySODMetrics 1.6.2, scikit-image 0.25.2, OpenCV 4.14, numpy 2.3.4.
GOLDEN = {
    0: {
        "max_f": 0.8922256714806315,
        "max_f_of_means": 0.8922256714806315,
        "max_f_by_image": 0.8922256714806315,
        "mean_f": 0.8894211745492382,
        "adaptive_f": 0.8922256714806315,
        "weighted_f": 0.8954771261941927,
        "mae": 0.028660826032540675,
        "s_measure": 0.8930988041144656,
        "mean_e": 0.9716195452234622,
        "max_e": 0.9744493030752096,
        "adaptive_e": 0.9744493030752096,
        "hce_stretched": 2.0,
    },
    1: {
        "max_f": 0.8183174224343677,
        "max_f_of_means": 0.8183174224343677,
        "max_f_by_image": 0.8183174224343677,
        "mean_f": 0.7256174236555315,
        "adaptive_f": 0.7999012345679012,
        "weighted_f": 0.6990198943036613,
        "mae": 0.12798905214635553,
        "s_measure": 0.8327098022510699,
        "mean_e": 0.8312011455999917,
        "max_e": 0.9267501824005269,
        "adaptive_e": 0.915139948246984,
        "hce_stretched": 11.0,
    },
    2: {
        "max_f": 0.8247799368875602,
        "max_f_of_means": 0.8247799368875602,
        "max_f_by_image": 0.8247799368875602,
        "mean_f": 0.7020070424649874,
        "adaptive_f": 0.763977690110189,
        "weighted_f": 0.6314908524352503,
        "mae": 0.10509322008373241,
        "s_measure": 0.699574071563505,
        "mean_e": 0.8251305047760371,
        "max_e": 0.9563880975179092,
        "adaptive_e": 0.9211210704998094,
        "hce_stretched": 6.0,
    },
    3: {
        "max_f": 0.7245997306598833,
        "max_f_of_means": 0.7245997306598833,
        "max_f_by_image": 0.7245997306598833,
        "mean_f": 0.7226354853779311,
        "adaptive_f": 0.7245997306598833,
        "weighted_f": 0.693306169928601,
        "mae": 0.09937888198757763,
        "s_measure": 0.7325693764541108,
        "mean_e": 0.9066114036069217,
        "max_e": 0.909186181108759,
        "adaptive_e": 0.909186181108759,
        "hce_stretched": 8.0,
    },
    4: {
        "max_f": 0.8156579677956691,
        "max_f_of_means": 0.8156579677956691,
        "max_f_by_image": 0.8156579677956691,
        "mean_f": 0.6599287142251491,
        "adaptive_f": 0.7054058185153105,
        "weighted_f": 0.5807546976038467,
        "mae": 0.11647428146763723,
        "s_measure": 0.8050698018485921,
        "mean_e": 0.7745548265421636,
        "max_e": 0.9528615596294339,
        "adaptive_e": 0.8967206060994464,
        "hce_stretched": 7.0,
    },
    5: {
        "max_f": 0.8715146299483649,
        "max_f_of_means": 0.8715146299483649,
        "max_f_by_image": 0.8715146299483649,
        "mean_f": 0.7366977476912323,
        "adaptive_f": 0.7714953271028039,
        "weighted_f": 0.6451573444462256,
        "mae": 0.0999078094331767,
        "s_measure": 0.8374931230894187,
        "mean_e": 0.8430949185538545,
        "max_e": 0.9554498068919656,
        "adaptive_e": 0.9338433758002772,
        "hce_stretched": 12.0,
    },
}
GOLDEN_SET = {
    "max_f": 0.8647644743156335,
    "max_f_of_means": 0.8692224052858493,
    "max_f_by_image": 0.8737509817562025,
    "mean_f": 0.7649939759949034,
    "adaptive_f": 0.8060367253214775,
    "weighted_f": 0.705980362876041,
    "mae": 0.09049648812974993,
    "s_measure": 0.8119975198510592,
    "mean_e": 0.8460313854704075,
    "max_e": 0.9491254717744998,
    "adaptive_e": 0.9286924941722807,
    "hce_stretched": 7.12,
}


def grey(x) -> Tensor:
    """Levels 0 to 255 as data holds them: float32 in [0, 1], 1 h w."""
    return torch.as_tensor(np.asarray(x, dtype=np.uint8))[None] / 255


def of_blobs(seed: int) -> tuple[Tensor, Tensor]:
    p, g = blobs(seed)
    return grey(p), grey(g)


def known(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def score(metric: Metric, *images: tuple[Tensor, Tensor]) -> float:
    return metric.compute(sum((metric.measure(p, g, known(g)) for p, g in images), torch.zeros(())))


def square(top: int = 30, bottom: int = 70, left: int = 30, right: int = 70) -> Tensor:
    g = torch.zeros(1, 100, 100, dtype=torch.float64)
    g[:, top:bottom, left:right] = 1
    return g


# ---- the oracle


@pytest.mark.parametrize("seed", GOLDEN)
def test_scores_of_one_image_are_those_of_the_published_library(seed):
    p, g = of_blobs(seed)
    parts = measure_many(SALIENCY.values(), p, g, known(g))
    for name, expected in GOLDEN[seed].items():
        if name in SALIENCY:
            assert SALIENCY[name].compute(parts[name]) == pytest.approx(expected, abs=1e-12), name


def test_scores_of_a_set_are_those_of_the_published_library():
    images = [of_blobs(seed) for seed in range(50)]
    for name, expected in GOLDEN_SET.items():
        if name in SALIENCY:
            assert score(SALIENCY[name], *images) == pytest.approx(expected, abs=1e-12), name


def test_correction_efforts_are_those_of_the_published_library():
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    images = [of_blobs(seed) for seed in range(50)]
    for seed, row in GOLDEN.items():
        assert score(HCE["hce_stretched"], images[seed]) == row["hce_stretched"]
    assert score(HCE["hce_stretched"], *images) == pytest.approx(GOLDEN_SET["hce_stretched"], abs=1e-12)
    # For masks of 0 and 1 stretching is nothing.
    for seed in range(0, 50, 3):
        assert score(HCE["hce"], images[seed]) == score(HCE["hce_stretched"], images[seed])


# ---- by hand


@pytest.mark.parametrize("level", [255, 128])
def test_two_by_two_pixels(level):
    images = grey([[level, 0], [0, 0]]), grey([[255, 255], [0, 0]])
    expected = {
        "mae": 0.25, "max_f": 0.8125, "s_measure": 0.877740, "mean_e": 0.849495, "max_e": 0.851519,
    }  # fmt: skip
    for name, value in expected.items():
        assert score(SALIENCY[name], images) == pytest.approx(value, abs=1e-6), name
    # At the threshold 0 everything is foreground.
    assert score(SALIENCY["mean_f"], images) == pytest.approx((255 * 0.8125 + 0.5652174) / 256, abs=1e-6)
    assert score(RAW["mae"], images) == pytest.approx(((255 - level) / 255 + 1) / 4)


def test_a_perfect_map():
    for size, mean_e in ((4, 1.0635417), (100, 0.9971700)):
        g = torch.zeros(1, size, size)
        g[:, : size // 2, 1:] = 1
        n = size**2
        for name in (
            "max_f",
            "max_f_of_means",
            "max_f_by_image",
            "s_measure",
            "weighted_f",
            "adaptive_f",
            "cc",
        ):
            assert score(SALIENCY[name], (g, g)) == pytest.approx(1, abs=1e-12), name
        assert score(SALIENCY["mae"], (g, g)) == 0
        assert score(SALIENCY["mean_e"], (g, g)) == pytest.approx(mean_e, abs=1e-6)
        assert score(SALIENCY["max_e"], (g, g)) == pytest.approx(n / (n - 1), abs=1e-12)


def test_stretching_forgives_a_timid_map():
    g = square()
    timid = 0.2 + 0.6 * g
    assert score(SALIENCY["mae"], (timid, g)) == pytest.approx(0, abs=1e-12)
    assert score(RAW["mae"], (timid, g)) == pytest.approx(0.2)
    assert score(MASKS["mae"], (timid, g)) == pytest.approx(0.2)
    # A constant map is not normalized.
    assert score(SALIENCY["mae"], (torch.full_like(g, 0.3), g)) == pytest.approx(0.84 * 0.3 + 0.16 * 0.7)


SQUARES = {
    "nothing": (torch.zeros(1, 100, 100), {"mae": 0.16, "s_measure": 0.42, "weighted_f": 0, "mean_e": 0.250025}, 9),
    "a small false square": (
        square() + square(10, 20, 10, 20),
        {"mae": 0.01, "max_f": 0.9541284, "s_measure": 0.960038, "weighted_f": 0.942578},
        0,
    ),
    "a false square": (square() + square(5, 25, 5, 25), {"mae": 0.04, "max_f": 0.8387097}, 1),
    "a small hole": (square() - square(45, 55, 45, 55), {"mae": 0.01, "max_f": 0.9848485}, 1),
    "a hole": (square() - square(40, 60, 40, 60), {"mae": 0.04, "max_f": 0.9285714}, 1),
    "two rows down": (square(32, 72), {"s_measure": 0.940384}, 0),
    "ten rows down": (square(40, 80), {"s_measure": 0.747698}, 7),
    "the left half": (square(right=50), {"max_f": 0.8125, "s_measure": 0.713062, "weighted_f": 0.684713}, 6),
    "the truth": (square(), {"mae": 0, "max_f": 1, "s_measure": 1, "weighted_f": 1}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", SQUARES)
def test_a_square_and_what_may_be_wrong_with_it(name):
    p, expected, effort = SQUARES[name]
    for key, value in expected.items():
        assert score(SALIENCY[key], (p, square())) == pytest.approx(value, abs=1e-6), key
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    assert score(HCE["hce"], (p, square())) == effort


def test_three_ways_to_a_maximum_over_a_set():
    g = np.zeros((20, 20), dtype=np.uint8)
    g[5:15, 5:15] = 255
    one, two = g.copy(), np.where(g, 100, 0).astype(np.uint8)
    one[:5] = 128
    two[19, 19] = 255
    images = [(grey(p), grey(g)) for p in (one, two)]
    assert score(SALIENCY["max_f_of_means"], *images) == pytest.approx(0.7916245, abs=1e-6)
    assert score(SALIENCY["max_f"], *images) == pytest.approx(0.7787919, abs=1e-6)
    assert score(SALIENCY["max_f_by_image"], *images) == pytest.approx(0.9961832, abs=1e-6)


def test_empty_prediction_and_empty_mask():
    nothing = torch.zeros(1, 4, 4)
    expected = {"max_f": 0, "weighted_f": 0, "s_measure": 1, "mean_e": 1.0625, "mae": 0}
    for name, value in expected.items():
        assert score(SALIENCY[name], (nothing, nothing)) == pytest.approx(value, abs=1e-12), name


def test_foreground_in_the_last_column_has_a_similarity():
    g = torch.zeros(1, 6, 6)
    g[..., -1] = 1
    assert score(SALIENCY["s_measure"], (g, g)) == pytest.approx(1)
    assert 0 <= score(SALIENCY["s_measure"], (0 * g, g)) < 0.5


def test_a_correlation():
    p, g = (torch.tensor(x, dtype=torch.float64)[None, None] for x in ([0.0, 1, 0], [0.0, 1, 1]))
    assert score(SALIENCY["cc"], (p, g)) == pytest.approx(0.5)
    total = SALIENCY["cc"].measure(torch.full_like(p, 0.3), g, known(g))
    assert math.isnan(SALIENCY["cc"].compute(total)) and skipped(total) == 1


# ---- laws


def random_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    p = torch.rand(1, 31, 24, generator=rng, dtype=torch.float64)
    return p, (torch.rand(1, 31, 24, generator=rng) > 0.6).double()


@pytest.mark.parametrize("name", SALIENCY)
def test_scores_are_shares(name):
    for table in (SALIENCY, RAW):
        value = score(table[name], random_pair())
        assert -1 <= value <= 1 if name == "cc" else 0 <= value <= 744 / 743


def test_rotated_images_have_the_same_pixel_scores():
    p, g = random_pair()
    for name in (
        "max_f",
        "max_f_of_means",
        "mean_f",
        "adaptive_f",
        "mae",
        "mean_e",
        "max_e",
        "adaptive_e",
        "cc",
    ):
        for turn in (lambda x: x.mT, lambda x: x.flip(-1), lambda x: x.flip(-2)):
            assert score(SALIENCY[name], (turn(p), turn(g))) == pytest.approx(
                score(SALIENCY[name], (p, g)), abs=1e-12
            ), name


def test_background_is_as_good_as_foreground_for_an_error():
    p, g = random_pair()
    assert score(RAW["mae"], (p, g)) == pytest.approx(score(RAW["mae"], (1 - p, 1 - g)), abs=1e-12)


def test_stretching_does_not_see_scale_and_shift():
    p, g = random_pair()
    for name in ("weighted_f", "s_measure", "mae", "cc"):
        assert score(SALIENCY[name], (0.3 * p + 0.5, g)) == pytest.approx(
            score(SALIENCY[name], (p, g)), abs=1e-9
        )


def test_a_grey_level_reaches_its_own_threshold_in_every_precision():
    levels = torch.arange(256, dtype=torch.float64).reshape(1, 16, 16) / 255
    g = (levels > 0.5).double()
    for dtype in (torch.float64, torch.float32):
        parts = RAW["max_f_of_means"].measure(levels.to(dtype), g.to(dtype), known(g))
        # 256 - t pixels reach the level t, 128 of them true.
        output = 256 - torch.arange(256, dtype=torch.float64)
        assert torch.allclose(parts[:256], torch.minimum(output, torch.tensor(128.0)) / output)


def test_what_leaves_the_unit_interval_is_refused_where_nothing_is_stretched():
    g = square()
    with pytest.raises(ValueError, match="from 0 to 2"):
        RAW["max_f"].measure(2 * g, g, known(g))
    assert score(SALIENCY["max_f"], (2 * g, g)) == 1


def test_the_mask_metric_equals_the_raw_curve():
    p, g = random_pair()
    assert score(MASKS["maxf"], (p, g)) == score(RAW["max_f"], (p, g))
    assert MASKS["maxf"].measure(p, g, known(g)).shape == (258,)


# ---- correction efforts


def test_efforts_of_a_missing_limb_and_of_what_is_forgiven():
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    g = np.zeros((60, 60), dtype=bool)
    g[20:40, 10:40] = True
    limb = g.copy()
    limb[30, 40:58] = True
    # A line of one pixel is not forgiven though it is thin: it is a part of the skeleton.
    assert human_correction_effort(g, limb) > 0
    assert human_correction_effort(limb, limb) == 0
    # A rim of as many pixels as are forgiven, and when fewer are.
    grown = np.zeros_like(g)
    grown[15:45, 5:45] = True
    assert human_correction_effort(grown, g) == 0
    assert human_correction_effort(grown, g, relax=1) > 0
    assert human_correction_effort(np.zeros_like(g), np.zeros_like(g)) == 0


def test_soft_masks_are_cut_at_level_128_or_after_stretching():
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    g = square()
    faint = g * 0.4
    assert score(HCE["hce_stretched"], (faint, g)) == 0
    assert score(HCE["hce"], (faint, g)) == 9
    assert score(HCE["hce"], (grey(128 * g[0].numpy()), g)) == 9
    assert score(HCE["hce"], (grey(129 * g[0].numpy()), g)) == 0
