"""Hand-checked values and laws of the metrics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from twofold.geometry import convert_frame, unit
from twofold.metrics import (
    DEPTH,
    NORMALS,
    NORMALS_BY_IMAGE,
    Metric,
    affine_aligned,
    angle,
    crop_mask,
    disparity_aligned,
    skipped,
    trivial_baselines,
)

FAMILIES = {"depth": DEPTH, "normals": NORMALS, "by_image": NORMALS_BY_IMAGE}
EVERY = {f"{family}-{name}": m for family, table in FAMILIES.items() for name, m in table.items()}


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, None]


def known(x: Tensor) -> Tensor:
    return torch.ones(*x.shape[:-3], 1, *x.shape[-2:], dtype=torch.bool)


def score(metric: Metric, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> float:
    return metric.compute(metric.measure(prediction, target, known(target) if valid is None else valid))


def tilted(*degrees: float) -> Tensor:
    """Normals 3 1 n, each so many degrees away from the viewer's direction."""
    a = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.zeros_like(a), a.sin(), a.cos()])[:, None]


def depths(seed: int = 0, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, truths and masks of `count` images, b 1 6 7."""
    rng = torch.Generator().manual_seed(seed)
    d = 1 + 9 * torch.rand(count, 1, 6, 7, generator=rng, dtype=torch.float64)
    p = d * (0.5 + torch.rand(d.shape, generator=rng, dtype=torch.float64))
    return p, d, torch.rand(d.shape, generator=rng) > 0.3


def some(name: str, seed: int = 0, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs for a metric of EVERY."""
    if name.startswith("depth"):
        return depths(seed, count)
    rng = torch.Generator().manual_seed(seed)
    n = unit(torch.randn(count, 3, 6, 7, generator=rng, dtype=torch.float64))
    p = n + 0.5 * torch.randn(n.shape, generator=rng, dtype=torch.float64)
    return p, n, torch.rand(count, 1, 6, 7, generator=rng) > 0.3


# ---- depth, by hand


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("abs_rel", 0.15),
        ("sq_rel", 0.143125),
        ("rmse", 0.8019508),
        ("rmse_log", 0.1881742),
        ("log10", 0.0658104),
        ("delta1", 0.5),
        ("delta2", 1.0),
        ("delta3", 1.0),
        ("i_rmse", 0.0648246),
        ("silog", 18.80169),
    ],
)
def test_depth_of_four_pixels(name, expected):
    assert score(DEPTH[name], line(1.1, 2, 3, 6.25), line(1, 2, 4, 5)) == pytest.approx(expected, rel=2e-6)


def test_silog_and_inverse_depth_of_two_pixels():
    assert score(DEPTH["silog"], line(1, 2), line(1, 1)) == pytest.approx(50 * math.log(2))
    assert score(DEPTH["silog"], 3 * line(1, 2, 5), line(1, 2, 5)) == pytest.approx(0, abs=1e-12)
    assert score(DEPTH["i_rmse"], line(2, 1), line(1, 2)) == pytest.approx(0.5)


def test_alignment_in_depth_by_hand():
    d = line(1, 2, 4)
    aligned = affine_aligned(line(0, 1, 2), d, known(d))
    assert torch.allclose(aligned, line(5 / 6, 7 / 3, 23 / 6))
    assert score(DEPTH["abs_rel"], aligned, d) == pytest.approx(0.125)
    aligned = affine_aligned(line(3, 2, 1.5), d, known(d))
    assert score(DEPTH["abs_rel"], aligned, d) == pytest.approx(3 / 14)
    assert torch.allclose(
        affine_aligned(line(2, 2, 2), d, known(d)), torch.tensor(7 / 3, dtype=torch.float64)
    )


def test_alignment_in_disparity_by_hand():
    d = line(1, 2, 4)
    assert torch.allclose(disparity_aligned(line(3, 2, 1.5), d, known(d)), d)
    assert torch.allclose(disparity_aligned(1 / d, d, known(d)), d)


def test_the_clip_is_that_of_the_data_set_and_never_reaches_zero():
    d = line(1, 2, 4, 9)
    aligned = affine_aligned(line(1, 2, 4, -20), d, known(d) & (d < 9), clip=(1.5, 3))
    assert torch.allclose(aligned, line(1.5, 2, 3, 1.5))
    assert affine_aligned(line(1, 2, 4, -20), d, known(d) & (d < 9))[..., -1].item() == pytest.approx(1e-6)
    # An aligned disparity that is not positive is very far, not negative.
    far = disparity_aligned(line(3, 2, 1.5, 1e-9), d, known(d) & (d < 9))
    assert far[..., -1].item() == pytest.approx(1000)


def test_each_image_weighs_the_same():
    one, three = line(1.1), line(1.5, 1.5, 1.5)
    a = DEPTH["abs_rel"].measure(one, torch.ones_like(one), known(one))
    b = DEPTH["abs_rel"].measure(three, torch.ones_like(three), known(three))
    assert DEPTH["abs_rel"].compute(a + b) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "size", "pixels"),
    [
        ("nyu_eigen", (480, 640), 238_560),
        ("kitti_eigen", (352, 1216), 230_316),
        ("kitti_garg", (352, 1216), 232_574),
    ],
)
def test_the_windows_of_the_benchmarks(name, size, pixels):
    assert crop_mask(name, *size).sum() == pixels


def test_an_unknown_window_is_refused():
    with pytest.raises(ValueError, match="nyu_eigen"):
        crop_mask("nyu", 480, 640)


# ---- depth, laws


@pytest.mark.parametrize("a", [3.0, 0.01, -2.0])
def test_scores_after_alignment_do_not_see_scale_and_shift(a):
    p, d, v = (x[0] for x in depths())
    for name in ("abs_rel", "delta1", "silog", "rmse"):
        one = score(DEPTH[name], affine_aligned(p, d, v), d, v)
        assert score(DEPTH[name], affine_aligned(a * p + 7, d, v), d, v) == pytest.approx(one, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("abs_rel", 0),
        ("delta1", 0),
        ("log10", 0),
        ("silog", 0),
        ("rmse_log", 0),
        ("rmse", 1),
        ("sq_rel", 1),
        ("i_rmse", -1),
    ],
)
def test_another_unit_of_length_scales_the_score_by_its_power(name, power):
    p, d, v = depths()
    assert score(DEPTH[name], 3 * p, 3 * d, v) == pytest.approx(score(DEPTH[name], p, d, v) * 3.0**power)


@pytest.mark.parametrize("name", ["delta1", "delta2", "log10", "silog", "rmse_log", "rmse", "i_rmse"])
def test_symmetric_scores_may_be_swapped(name):
    p, d, v = depths()
    assert score(DEPTH[name], p, d, v) == pytest.approx(score(DEPTH[name], d, p, v))


def test_a_ratio_of_exactly_the_threshold_is_outside():
    assert score(DEPTH["delta1"], line(5.0), line(4.0)) == 0
    assert score(DEPTH["delta1"], line(4.999), line(4.0)) == 1


def test_depths_without_a_logarithm_are_refused():
    with pytest.raises(ValueError, match="clip"):
        DEPTH["log10"].measure(line(0.0, 1), line(1, 1), known(line(1, 1)))


# ---- normals, by hand


@pytest.mark.parametrize("table", [NORMALS, NORMALS_BY_IMAGE])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", 30),
        ("median", 15),
        ("rmse", 46.36809),
        ("below_5", 25),
        ("below_7.5", 25),
        ("below_11.25", 50),
        ("below_22.5", 75),
        ("below_30", 75),
    ],
)
def test_normals_of_four_pixels(table, name, expected):
    got = score(table[name], tilted(0, 10, 20, 90), tilted(0, 0, 0, 0))
    assert got == pytest.approx(expected, abs=0.0051 if name == "median" else 1e-5)


def test_angles():
    up, down = tilted(0), tilted(180)
    assert angle(up, tilted(30)).item() == pytest.approx(30) and angle(
        up, 7 * tilted(30)
    ).item() == pytest.approx(30)
    assert angle(up, down).item() == pytest.approx(180)
    assert angle(up, torch.zeros_like(up)).item() == pytest.approx(90)
    v = unit(torch.randn(3, 100, 100))
    assert angle(v, v).max() < 1e-4  # in float32, an arc cosine gives 0.04
    assert angle(up, tilted(1e-7)).item() == pytest.approx(1e-7, rel=1e-6)


def test_pooled_and_per_image_averages_differ_as_published():
    wrong, target = tilted(0, 0, 0), tilted(0, 0, 0)
    ten, zero = tilted(10), tilted(0)
    for table, median, mean in ((NORMALS, 0.0, 2.5), (NORMALS_BY_IMAGE, 5.0, 5.0)):
        for name, expected in (("median", median), ("mean", mean)):
            m = table[name]
            total = m.measure(wrong, target, known(target)) + m.measure(ten, zero, known(zero))
            assert m.compute(total) == pytest.approx(expected, abs=0.0051)


def test_an_eight_bit_pixel_is_a_third_of_a_degree_off():
    stored = torch.tensor([128, 128, 255.0], dtype=torch.float64)[:, None, None] / 255 * 2 - 1
    assert angle(stored, tilted(0)).item() == pytest.approx(0.3177, abs=1e-3)


# ---- normals, laws


def test_a_common_rotation_or_frame_or_flip_changes_no_angle():
    p, n, v = some("normals")
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = [torch.einsum("ij,bjhw->bihw", turn, x) for x in (p, n)]
    mirrored = [x.flip(-1) * torch.tensor([-1.0, 1, 1])[:, None, None] for x in (p, n)]
    framed = [convert_frame(x, "RUB", "LUB") for x in (p, n)]
    for table in (NORMALS, NORMALS_BY_IMAGE):
        for metric in table.values():
            one = score(metric, p, n, v)
            assert score(metric, *turned, v) == pytest.approx(one, abs=0.0101)
            assert score(metric, *mirrored, v.flip(-1)) == pytest.approx(one, abs=1e-9)
            assert score(metric, *framed, v) == pytest.approx(one, abs=1e-9)
            assert score(metric, 5 * p, n, v) == pytest.approx(one, abs=0.0101)
            assert score(metric, n, p, v) == pytest.approx(one, abs=0.0101)


def test_the_histogram_is_within_half_a_bin_of_the_exact_median():
    for seed in range(5):
        p, n, v = some("normals", seed, count=1)
        exact = angle(p, n)[:, None][v].quantile(0.5).item()
        assert score(NORMALS["median"], p, n, v) == pytest.approx(exact, abs=0.0051)


def test_the_mean_is_at_most_the_rmse_and_thresholds_are_monotone():
    p, n, v = some("normals")
    for table in (NORMALS, NORMALS_BY_IMAGE):
        assert score(table["mean"], p, n, v) <= score(table["rmse"], p, n, v)
        shares = [score(table[k], p, n, v) for k in table if k.startswith("below")]
        assert shares == sorted(shares)


# ---- laws of every metric


@pytest.mark.parametrize("name", EVERY)
def test_a_perfect_prediction_scores_perfectly(name):
    _, d, v = some(name)
    perfect = {"lower": 0.0, "higher": 100.0 if "below" in name else 1.0}[EVERY[name].better]
    # The histogram gives the centre of its first bin.
    assert score(EVERY[name], d, d, v) == pytest.approx(perfect, abs=0.0051 if "median" in name else 1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_a_score_does_not_depend_on_how_the_data_is_split(name):
    metric, (p, d, v) = EVERY[name], some(name)
    whole = metric.measure(p, d, v)
    parts = metric.measure(p[:1], d[:1], v[:1]) + metric.measure(p[1:], d[1:], v[1:])
    singles = sum((metric.measure(p[i], d[i], v[i]) for i in range(4)), torch.zeros_like(whole))
    assert torch.allclose(whole, parts, rtol=1e-12) and torch.allclose(whole, singles, rtol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_invalid_pixels_and_the_order_of_pixels_never_matter(name):
    metric, (p, d, v) = EVERY[name], some(name)
    one = score(metric, p, d, v)
    for junk in (math.nan, math.inf, -1.0):
        assert score(metric, torch.where(v, p, junk), torch.where(v, d, junk), v) == pytest.approx(
            one, rel=1e-12
        )
    order = torch.randperm(7)
    assert score(metric, p[..., order], d[..., order], v[..., order]) == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_images_without_a_valid_pixel_are_counted_apart(name):
    metric, (p, d, v) = EVERY[name], some(name)
    one = score(metric, p[1:], d[1:], v[1:])
    v = v.clone()
    v[0] = False
    total = metric.measure(p, d, v)
    assert skipped(total) == 1 and metric.compute(total) == pytest.approx(one, rel=1e-12)
    nothing = metric.measure(p, d, torch.zeros_like(v))
    assert skipped(nothing) == 4 and math.isnan(metric.compute(nothing))


@pytest.mark.parametrize("name", EVERY)
def test_predictions_that_are_nan_or_misshapen_are_refused(name):
    metric, (p, d, v) = EVERY[name], some(name)
    with pytest.raises(ValueError, match="NaN"):
        metric.measure(torch.full_like(p, math.nan), d, v)
    with pytest.raises(ValueError, match="match"):
        metric.measure(p[..., 1:], d, v)
    with pytest.raises(ValueError, match="match"):
        metric.measure(p, d, v[:1])


def test_names_are_those_of_the_tables():
    assert all(name == m.name for table in (DEPTH, NORMALS, NORMALS_BY_IMAGE) for name, m in table.items())


# ---- baselines


def test_baselines_find_the_scene_they_assume():
    row = torch.arange(20, dtype=torch.float64)[:, None].expand(1, 20, 30)
    valid = torch.rand(1, 20, 30) > 0.5
    for name, scene in (
        ("constant", torch.full_like(row, 3.0)),
        ("row", 1 + 0.2 * row),
        ("row", 9 - 0.2 * row),
        ("disparity_row", 1 / (0.05 + 0.02 * row)),
    ):
        assert torch.allclose(trivial_baselines(scene, valid)[name], scene, rtol=1e-8), name


def test_baselines_are_the_least_squares_fits():
    d = 1 + 5 * torch.rand(1, 12, 9, dtype=torch.float64)
    valid = torch.rand(1, 12, 9) > 0.3
    fits = trivial_baselines(d, valid)
    assert torch.allclose(fits["constant"], d[valid].mean())
    error = {name: ((p - d)[valid] ** 2).sum() for name, p in fits.items()}
    assert error["row"] <= error["constant"] + 1e-9
    row = torch.arange(12.0, dtype=torch.float64)[:, None].expand(1, 12, 9)
    residual = (fits["row"] - d)[valid]
    assert abs(residual.sum()) < 1e-8 and abs((residual * row[valid]).sum()) < 1e-8


def test_baselines_never_leave_the_clip():
    d = 1 / torch.linspace(1, 1e-3, 40, dtype=torch.float64)[:, None].expand(1, 40, 5).clone()
    fits = trivial_baselines(d, torch.arange(40)[None, :, None].expand_as(d) < 10, clip=(0.5, 80))
    assert all(p.min() >= 0.5 and p.max() <= 80 and p.isfinite().all() for p in fits.values())
    # Disparity is linear in the row here, so that the fit is the scene itself, held in the clip.
    assert torch.allclose(fits["disparity_row"], d.clamp(0.5, 80), rtol=1e-6)
