"""Scores of mattes, by hand and by law."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from twofold.metrics import MATTING, Metric, matting_metrics, measure_in_trimap, measure_many, skipped

SANE = matting_metrics(empty="zero")


def flat(value: float, size: int) -> Tensor:
    return torch.full((1, size, size), value, dtype=torch.float64)


def known(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def score(metric: Metric, p: Tensor, a: Tensor) -> float:
    return metric.compute(metric.measure(p, a, known(a)))


def square(size: int = 20) -> Tensor:
    a = flat(0, size)
    a[:, 5:15, 5:15] = 1
    return a


def soft(seed: int = 0) -> Tensor:
    """A matte with soft edges, 1 30 40."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    row, column, size = torch.rand(3, generator=rng) * torch.tensor([10.0, 14, 4]) + torch.tensor(
        [10.0, 13, 5]
    )
    return torch.sigmoid(size - ((y - row) ** 2 + (x - column) ** 2).sqrt())[None].double()


def test_half_of_everything():
    p, a = flat(0.5, 2), flat(1, 2)
    for name, value in (("sad", 0.002), ("mad", 0.5), ("mse", 0.25)):
        assert score(MATTING[name], p, a) == pytest.approx(value), name


@pytest.mark.parametrize(
    ("p", "a", "published", "sane"),
    [
        (flat(0.5, 10), flat(1, 10), 0.0, 0.05),
        (flat(0, 20), square(), 0.0, 0.1),
    ],
)
def test_connectivity_of_nothing_in_common_costs_nothing_as_published(p, a, published, sane):
    assert score(MATTING["conn"], p, a) == pytest.approx(published, abs=1e-12)
    assert score(SANE["conn"], p, a) == pytest.approx(sane)
    assert score(MATTING["sad"], p, a) == pytest.approx(sane)


def test_connectivity_of_a_square():
    a = square()
    stray, cut = a.clone(), a.clone()
    stray[:, 0, 0] = 1
    cut[..., 10] = 0
    for p, sad, conn in ((stray, 0.001, 0.001), (cut, 0.01, 0.01), (0.9 * a, 0.01, 0.0)):
        assert score(MATTING["sad"], p, a) == pytest.approx(sad)
        assert score(MATTING["conn"], p, a) == pytest.approx(conn, abs=1e-12)


@pytest.mark.parametrize(("alpha", "cost"), [(0.1, 0.0), (0.14, 0.0), (0.2, 0.2), (0.7, 0.7)])
def test_a_lone_pixel_costs_its_alpha_unless_it_is_in_the_dead_zone(alpha, cost):
    """It belongs to no region at any level, so all of it is unconnected; less than 0.15 is taken for connected."""
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    output = truth.clone()
    output[..., 4, 6] = alpha
    assert score(MATTING["conn"], output, truth) == pytest.approx(cost / 1000, abs=1e-9)


def test_the_gradient_of_a_ramp():
    ramp = (torch.arange(20, dtype=torch.float64) / 20).expand(1, 20, 20)
    nothing = torch.zeros_like(ramp)
    assert score(MATTING["grad"], ramp, nothing) == pytest.approx(0.0838546, abs=1e-7)
    assert score(MATTING["grad"], 2 * ramp, nothing) == pytest.approx(0.3354184, abs=1e-7)
    assert score(MATTING["grad"], ramp + 0.3, ramp) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_laws_of_mattes(seed):
    p, a = soft(seed), soft(seed + 10)
    got = {name: score(m, p, a) for name, m in MATTING.items()}
    assert 0 < got["mse"] <= got["mad"] <= 1
    assert got["sad"] == pytest.approx(got["mad"] * p.numel() / 1000)
    assert got["conn"] >= 0 and got["grad"] > 0
    for name, m in MATTING.items():
        assert score(m, a, a) == pytest.approx(0, abs=1e-12), name
        for turn in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
            assert score(m, turn(p), turn(a)) == pytest.approx(got[name], rel=1e-9), name
    assert score(SANE["conn"], p, a) >= 0


# ---- trimaps


def test_where_nothing_is_unknown_elsewhere_a_trimap_is_the_whole_image():
    p, a = soft(1), soft(11)
    parts = measure_in_trimap(p, a, torch.full_like(a, 0.5))
    whole = measure_many(MATTING.values(), p, a, known(a))
    for name in MATTING:
        torch.testing.assert_close(parts[name], whole[name])


def test_outside_the_unknown_region_the_prediction_is_the_trimap_s():
    a = square()
    trimap = torch.where(a > 0, 1.0, 0.0)
    trimap[..., 4:6] = 0.5
    p = torch.where(trimap == 0.5, 0.5, torch.rand(a.shape, dtype=torch.float64))
    parts = measure_in_trimap(p, a, trimap)
    got = {name: m.compute(parts[name]) for name, m in MATTING.items()}
    # Forty unknown pixels, each half wrong.
    assert got["sad"] == pytest.approx(0.02)
    assert got["mad"] == pytest.approx(0.5) and got["mse"] == pytest.approx(0.25)
    forced = torch.where(trimap == 0.5, p, trimap.double())
    for name in ("grad", "conn"):
        assert got[name] == pytest.approx(score(MATTING[name], forced, a)), name


def test_images_without_an_unknown_pixel_are_skipped():
    a = torch.stack([square(), square()])
    trimap = a.clone()
    trimap[0, :, 4:6] = 0.5
    parts = measure_in_trimap(0.5 * a, a, trimap)
    alone = measure_in_trimap(0.5 * a[0], a[0], trimap[0])
    for name, m in MATTING.items():
        assert skipped(parts[name]) == 1 and m.compute(parts[name]) == m.compute(alone[name])
