"""Invariants of every metric: a sum over images, independent of process and order."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from twofold import metrics
from twofold.geometry import unit
from twofold.metrics import (
    Features,
    Metric,
    edge_metrics,
    fid,
    matting_metrics,
    measure_all,
    measure_many,
    merge_sums,
    parsing_metrics,
    saliency_metrics,
    semantic_metrics,
    skipped,
)
from twofold.metrics.parallel import as_tensors

pytest.importorskip("cv2")
pytest.importorskip("skimage")

TABLES: dict[str, dict[str, Metric]] = {
    "depth": metrics.DEPTH,
    "depth_pooled": metrics.DEPTH_POOLED,
    "depth_variants": metrics.DEPTH_VARIANTS,
    "boundaries": metrics.BOUNDARIES,
    "normals": metrics.NORMALS,
    "normals_by_image": metrics.NORMALS_BY_IMAGE,
    "masks": metrics.MASKS,
    "saliency": metrics.SALIENCY,
    "saliency_raw": saliency_metrics(minmax=False),
    "hce": metrics.HCE,
    "matting": metrics.MATTING,
    "matting_sane": matting_metrics(empty="zero"),
    # As EDGES, at one threshold.
    "edges": edge_metrics(reach=0.1, thresholds=1),
    "keypoints": metrics.KEYPOINTS,
    "pictures": metrics.IMAGE_QUALITY,
    "semantic": semantic_metrics(4, (255,), absent="zero"),
    "parsing": parsing_metrics(3),
    "multitask_pooled": metrics.MULTITASK_POOLED,
    "multitask_by_image": metrics.MULTITASK_BY_IMAGE,
    "quirks": metrics.QUIRKS,
}
# By name everywhere, so that all of a kind can be measured together.
EVERY = {
    f"{table}.{name}": Metric(f"{table}.{name}", m.unit, m.better, m.update, m.compute)
    for table, found in TABLES.items()
    for name, m in found.items()
}
SIZE = (9, 11)
# As many as NYUv2's test set has.
COUNT = 654


def kind(name: str) -> str:
    """What a metric of EVERY compares."""
    table, _, metric = name.partition(".")
    if table in ("semantic", "parsing"):
        return "semantic"
    for word in ("depth", "normals", "keypoints", "pictures"):
        if word in table or word in metric:
            return word
    return "depth" if table == "boundaries" else "masks"


KINDS = {word: [m for n, m in EVERY.items() if kind(n) == word] for word in {kind(n) for n in EVERY}}


def images(word: str, count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, truths and masks; the second image is not known at all, the first wholly."""
    rng = torch.Generator().manual_seed(seed)
    channels = {"normals": 3, "keypoints": 2, "pictures": 3}.get(word, 1)
    t = torch.rand(count, channels, *SIZE, generator=rng, dtype=torch.float64)
    p = 0.7 * t + 0.3 * torch.rand(t.shape, generator=rng, dtype=torch.float64)
    if word == "depth":
        t, p = 1 + 9 * t, 1 + 9 * p
    elif word == "normals":
        t, p = unit(t - 0.5), p - 0.5
    elif word == "masks":
        t = (t > 0.6).double()
    elif word == "semantic":
        t, p = (4 * t).floor(), (4 * p).floor()
    v = torch.rand(count, 1, *SIZE, generator=rng) > 0.2
    v[0], v[1] = True, False
    return p, t, v


def test_every_kind_of_metric_is_covered():
    assert len(EVERY) > 80 and set(KINDS) == {
        "depth",
        "normals",
        "masks",
        "semantic",
        "keypoints",
        "pictures",
    }
    for table, found in TABLES.items():
        assert all(name == m.name for name, m in found.items()), table
    exported = [x for n, x in vars(metrics).items() if n.isupper() and isinstance(x, dict)]
    tables = [x for x in exported if all(isinstance(m, Metric) for m in x.values())]
    assert all(x in TABLES.values() or x is metrics.EDGES for x in tables)


def summed(sums: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for more in sums:
        total = merge_sums(total, more)
    return total


# What the large set is measured with; the others are these, with other names or `compute`.
LARGE = {
    word: [m for m in found if "raw" not in m.name and "sane" not in m.name] for word, found in KINDS.items()
}


def measure_half(half: int, count: int) -> dict[str, np.ndarray]:
    """A half of the shuffled images of every kind, measured in batches; the sums by metric."""
    torch.set_num_threads(1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))[half::2]
    total: dict[str, Tensor] = {}
    for word, found in LARGE.items():
        p, t, v = images(word, count)
        total |= summed(measure_many(found, p[i], t[i], v[i]) for i in order.split(100))
    return {name: x.numpy() for name, x in total.items()}


@pytest.mark.parametrize("count", [61, pytest.param(COUNT, marks=pytest.mark.slow)])
def test_a_set_has_one_score_however_it_is_measured(count):
    """One by one in order; and shuffled, in batches, a half in each of two processes, added."""
    # Forked where that is safe enough with one thread: a fresh process spends longer importing than measuring.
    how = "fork" if sys.platform == "linux" else "spawn"
    with ProcessPoolExecutor(2, multiprocessing.get_context(how)) as pool:
        halves = [pool.submit(measure_half, half, count) for half in (0, 1)]
        whole = {}
        for word, found in LARGE.items():
            whole |= measure_all(found, zip(*images(word, count), strict=True))
        apart = summed({n: torch.as_tensor(x) for n, x in half.result().items()} for half in halves)
    for m in (m for found in LARGE.values() for m in found):
        one, other = (m.compute(total[m.name]) for total in (whole, apart))
        assert math.isfinite(one) and other == pytest.approx(one, rel=1e-9), m.name
        assert skipped(whole[m.name]) == skipped(apart[m.name]) == float("unmasked" not in m.name), m.name


def load(item: int | tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Depths made where they are measured, or sent there."""
    return images("depth", 20, item) if isinstance(item, int) else as_tensors(item)


def test_another_process_finds_the_same_to_the_last_bit():
    found = list(metrics.DEPTH.values())
    here = measure_all(found, range(5), load)
    there = measure_all(found, [0, load(1), 2, load(3), 4], load, processes=1)
    assert here.keys() == there.keys() and all(torch.equal(here[n], there[n]) for n in here)


def test_parts_of_a_batch_are_those_of_its_images():
    for word, found in KINDS.items():
        p, t, v = images(word)
        whole = measure_many(found, p, t, v)
        parts = summed(measure_many(found, *x) for x in zip(p, t, v, strict=True))
        for m in found:
            assert torch.allclose(parts[m.name], whole[m.name], rtol=1e-12, atol=0), m.name


def test_every_metric_can_be_sent_to_another_process():
    for name, metric in EVERY.items():
        p, t, v = images(kind(name), 3)
        again = pickle.loads(pickle.dumps(metric))
        assert torch.equal(again.measure(p, t, v), metric.measure(p, t, v)), name


def test_an_error_is_that_of_the_metric_and_nothing_is_nothing():
    p, t, v = images("depth", 2)
    with pytest.raises(ValueError, match="NaN"):
        measure_all(KINDS["depth"], [(p * math.nan, t, v)])
    assert measure_all(KINDS["depth"], []) == {}
    ours = metrics.mean_over_images("mine", "m", "lower", lambda x: x.p.mean())
    with pytest.raises(ValueError, match="module-level function"):
        measure_all([ours], [(p, t, v)], processes=1)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_known_never_matters(name):
    if "unmasked" in name:
        pytest.skip("its quirk is that it does")
    p, t, v = images(kind(name))
    one = EVERY[name].measure(p, t, v)
    for junk in (math.nan, math.inf, -1.0):
        spoiled = EVERY[name].measure(torch.where(v, p, junk), torch.where(v, t, junk), v)
        assert torch.allclose(spoiled, one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_images_without_a_valid_pixel_are_counted_and_not_averaged(name):
    metric, (p, t, v) = EVERY[name], images(kind(name))
    if "unmasked" in name:
        pytest.skip("its quirk is that it has no such images")
    known = v.flatten(1).any(1)
    assert skipped(metric.measure(p, t, v)) == 1
    one, all_known = (metric.compute(metric.measure(*x)) for x in ((p, t, v), (p[known], t[known], v[known])))
    assert one == pytest.approx(all_known, rel=1e-12)
    nothing = metric.measure(p, t, torch.zeros_like(v))
    assert skipped(nothing) == len(p) and math.isnan(metric.compute(nothing))


@pytest.mark.parametrize("name", EVERY)
def test_predictions_without_a_number_or_of_another_shape_are_refused(name):
    metric, (p, t, v) = EVERY[name], images(kind(name))
    with pytest.raises(ValueError):
        metric.measure(torch.full_like(p, math.nan), t, v)
    for wrong in ((p[..., 1:], t, v), (p, t, v[:1]), (p, t, v[:, 0])):
        with pytest.raises(ValueError, match="match"):
            metric.measure(*wrong)


def test_metrics_measured_together_are_those_measured_alone():
    for word, found in KINDS.items():
        p, t, v = images(word)
        together = measure_many(found, p, t, v)
        for m in found:
            assert torch.equal(m.measure(p, t, v), together[m.name]), m.name


def test_one_name_for_two_metrics_and_no_image_are_refused():
    p, t, v = images("normals")
    with pytest.raises(ValueError, match="the same name"):
        measure_many([metrics.NORMALS["mean"], metrics.NORMALS_BY_IMAGE["mean"]], p, t, v)
    with pytest.raises(ValueError, match="no images"):
        measure_many([metrics.NORMALS["mean"]], p[:0], t[:0], v[:0])


def test_a_user_defined_metric_is_a_function_and_a_line():
    p, t, v = images("depth")
    worst = metrics.mean_over_images("worst", "m", "lower", lambda x: (x.p - x.d).abs().max())
    total = worst.measure(p, t, v)
    expected = [(a - b).abs()[c].max() for a, b, c in zip(p, t, v, strict=True) if c.any()]
    assert worst.compute(total) == pytest.approx(float(sum(expected) / len(expected)))
    errors = metrics.mean_over_pixels("errors", "m", "lower", lambda x: (x.p - x.d).abs())
    assert errors.compute(errors.measure(p, t, v)) == pytest.approx(float((p - t).abs()[v].mean()))


def test_moments_of_654_images_add_like_scores():
    rows = torch.randn(COUNT, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    other = Features(1.2 * rows.flip(0) - 1).moments
    whole = fid(Features(rows).moments, other)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    parts = [Features(rows[x]).moments for x in order.split(100)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert fid(total, other) == pytest.approx(whole, rel=1e-9)
