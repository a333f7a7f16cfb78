"""Laws of merging, and equality with diffusers where it does the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from twofold.compat.ensemble import diffusers_ensemble
from twofold.geometry import align_affine, unit
from twofold.tasks.ensemble import Merged, affine, closest, mean_direction, median, scale_only

MERGES = {
    "median": (median, 1),
    "affine": (affine, 1),
    "scale_only": (scale_only, 1),
    "closest": (closest, 3),
    "mean_direction": (mean_direction, 3),
}
ALIGNERS = {name: MERGES[name][0] for name in ("affine", "scale_only")}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(seed: int = 0, height: int = 24, width: int = 32) -> Tensor:
    """A sum of waves, 1 h w, from 0 to 1."""
    draw = torch.rand(6, 4, generator=generator(seed))
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 6, width), indexing="ij")
    waves = draw[:, 0, None, None] * torch.sin(
        draw[:, 1, None, None] * x + draw[:, 2, None, None] * y + 6 * draw[:, 3, None, None]
    )
    total = waves.sum(0, keepdim=True)
    return (total - total.min()) / (total.max() - total.min())


def ensemble(
    truth: Tensor, n: int, seed: int, noise: float = 0.0, outliers: float = 0.0, shift: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Members ``n 1 h w`` of a target in [0, 1], and the scale and shift each of them was given (n)."""
    rng = generator(1000 + seed)
    scale = 0.4 + 0.6 * torch.rand(n, generator=rng)
    offset = (1 - scale) * torch.rand(n, generator=rng) * shift
    members = scale[:, None, None, None] * truth + offset[:, None, None, None]
    members = members + noise * torch.randn(members.shape, generator=rng)
    wrong = torch.rand(members.shape, generator=rng) < outliers
    return torch.where(wrong, torch.rand(members.shape, generator=rng), members), scale, offset


def vectors(n: int = 5, seed: int = 0) -> Tensor:
    towards = torch.tensor([0.0, 0.0, 1.5]).reshape(3, 1, 1)
    return unit(torch.randn(n, 3, 24, 32, generator=generator(seed)) + towards)


def fitted(merged: Merged, of: str = "scale") -> Tensor:
    found = getattr(merged, of)
    assert found is not None
    return found


def error(found: Tensor, truth: Tensor) -> float:
    """Root mean square error after least squares."""
    scale, shift = align_affine(found, truth, torch.ones_like(truth, dtype=torch.bool))
    return float((found * scale + shift - truth).square().mean().sqrt())


def members_for(channels: int, n: int) -> Tensor:
    return vectors(n) if channels == 3 else ensemble(smooth(), n, 0, noise=0.05)[0].clamp(0, 1)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_shapes_and_ranges(name: str, n: int) -> None:
    merge, channels = MERGES[name]
    members = members_for(channels, n)
    before = members.clone()
    merged = merge(members)
    assert merged.map.shape == (channels, 24, 32)
    assert merged.uncertainty.shape == (1, 24, 32)
    assert bool(merged.map.isfinite().all())
    assert bool((merged.uncertainty >= 0).all())
    assert torch.equal(members, before)
    if n == 1:
        assert float(merged.uncertainty.max()) < 1e-6


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_identical_members_come_back(name: str, n: int) -> None:
    merge, channels = MERGES[name]
    one = members_for(channels, 1)[0]
    merged = merge(one.expand(n, -1, -1, -1))
    expected = {"affine": (one - one.min()) / (one.max() - one.min()), "scale_only": one / one.max()}
    torch.testing.assert_close(merged.map, expected.get(name, one), atol=2e-6, rtol=0)
    assert float(merged.uncertainty.max()) < 1e-6


@pytest.mark.parametrize("name", MERGES)
def test_the_order_of_members_does_not_matter(name: str) -> None:
    merge, channels = MERGES[name]
    for n in (2, 3, 6):
        members = members_for(channels, n)
        first = merge(members)
        for seed in range(3):
            order = torch.randperm(n, generator=generator(seed))
            again = merge(members[order])
            torch.testing.assert_close(again.map, first.map, atol=2e-6, rtol=0)
            torch.testing.assert_close(again.uncertainty, first.uncertainty, atol=2e-6, rtol=0)
            if first.scale is not None:
                torch.testing.assert_close(again.scale, first.scale[order])


@pytest.mark.parametrize("name", ALIGNERS)
def test_a_scale_and_shift_of_all_members_do_not_matter(name: str) -> None:
    members, _, _ = ensemble(smooth(), 5, 0, noise=0.05)
    members = members.clamp(0, 1)
    first = ALIGNERS[name](members)
    again = ALIGNERS[name](40 * members + (0 if name == "scale_only" else 7))
    torch.testing.assert_close(again.map, first.map, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.uncertainty, first.uncertainty, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("name", ALIGNERS)
def test_without_noise_truth_scale_and_shift_are_found(name: str, n: int) -> None:
    truth = smooth(3)
    members, scale, shift = ensemble(truth, n, 3, shift=name == "affine")
    merged = ALIGNERS[name](members)
    anchor = int(scale.argmax())
    torch.testing.assert_close(merged.map, truth, atol=1e-5, rtol=0)
    assert float(merged.uncertainty.max()) < 1e-5
    torch.testing.assert_close(merged.scale, (scale[anchor] / scale).double(), atol=0, rtol=1e-5)
    assert float(fitted(merged)[anchor]) == 1
    if name == "affine":
        assert float(fitted(merged, "shift")[anchor]) == 0
        expected = (shift[anchor] - scale[anchor] / scale * shift).double()
        torch.testing.assert_close(merged.shift, expected, atol=1e-5, rtol=0)
    else:
        assert merged.shift is None


@pytest.mark.parametrize(
    ("noise", "outliers", "bound"), [(0.03, 0.0, 0.03), (0.1, 0.0, 0.1), (0.03, 0.3, 0.3)]
)
def test_known_scales_are_found_in_noise(noise: float, outliers: float, bound: float) -> None:
    for seed in range(6):
        members, scale, _ = ensemble(smooth(seed, 48, 64), 8, seed, noise, outliers)
        ratio = fitted(affine(members)) * scale
        assert float((ratio / ratio.mean() - 1).abs().max()) < bound


@pytest.mark.parametrize(("noise", "outliers"), [(0.03, 0.0), (0.15, 0.0), (0.03, 0.3)])
def test_the_merged_map_is_at_least_as_good_as_by_search(noise: float, outliers: float) -> None:
    ours, reference = [], []
    for seed in range(6):
        truth = smooth(seed)
        members = ensemble(truth, 5, seed, noise, outliers)[0].clamp(0, 1)
        ours.append(error(affine(members).map, truth))
        reference.append(error(diffusers_ensemble(members).map, truth))
        assert ours[-1] < reference[-1] * 1.02
    assert sum(ours) < sum(reference)


def test_merging_beats_the_best_member() -> None:
    for seed in range(3):
        truth = smooth(seed)
        members, _, _ = ensemble(truth, 8, seed, noise=0.05)
        assert error(affine(members).map, truth) < 0.75 * min(error(m, truth) for m in members)


def test_nothing_collapses() -> None:
    for seed in range(50):
        n = 2 + seed % 9
        members, given, _ = ensemble(
            smooth(seed), n, seed, noise=0.02 * (seed % 6), outliers=0.1 * (seed % 4)
        )
        merged = affine(members.clamp(0, 1))
        assert float(fitted(merged).min()) >= 1
        assert float(fitted(merged).max()) < 2 * float(given.max() / given.min())
        assert float(merged.map.min()) == 0
        assert float(merged.map.max()) == 1
        assert error(merged.map, smooth(seed)) < 0.25
        assert correlation(merged.map, smooth(seed)) > 0


def test_no_member_is_stretched_beyond_reason() -> None:
    """Mixtures of three patterns in any proportion and contrast: nothing is stretched to more than 1 / 0.3 of the
    contrast of the anchor."""
    patterns = torch.cat([smooth(seed) for seed in range(3)]).flatten(1)
    for seed in range(200):
        rng = generator(seed)
        mixed = torch.randn(2 + seed % 6, 3, generator=rng) @ patterns
        members = (mixed * 10 ** -torch.rand(len(mixed), 1, generator=rng)).view(-1, 1, 24, 32)
        merged = affine(members)
        scale = fitted(merged)
        spread = members.double().flatten(1).std(1)
        assert bool(((scale == 0) | (scale >= 1)).all())
        assert int((scale == 1).sum()) == 1
        assert bool((scale * spread <= spread[scale == 1] / 0.299).all())
        assert (float(merged.map.min()), float(merged.map.max())) == (0, 1)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_who_contradicts_is_left_out_of_the_map_but_not_of_the_uncertainty(n: int) -> None:
    truth = smooth(1)
    good, _, _ = ensemble(truth, n, 1, noise=0.02)
    alone = affine(good)
    contrary = {
        "reversed": 1 - truth,
        "reversed, with the highest contrast": 5 - 4 * truth,
        "flat": torch.full_like(truth, 0.3),
        "black": torch.zeros_like(truth),
        "nearly flat": 0.3 + 1e-6 * torch.rand(truth.shape, generator=generator(0)),
        "with hardly any contrast": 0.3 + 1e-4 * truth,
        "unrelated": torch.rand(truth.shape, generator=generator(0)),
    }
    for what, odd in contrary.items():
        merged = affine(torch.cat([good[:1], odd[None], good[1:]]))
        assert (fitted(merged) == 0).tolist() == [i == 1 for i in range(n + 1)], what
        torch.testing.assert_close(merged.map, alone.map, atol=1e-5, rtol=0)
        assert float(merged.uncertainty.mean()) > float(alone.uncertainty.mean()), what


@pytest.mark.parametrize("name", ["reversed", "flat", "unrelated"])
def test_two_that_contradict_each_other(name: str) -> None:
    strong = smooth(1)
    weak = {
        "reversed": 0.8 - 0.5 * strong,
        "flat": torch.full_like(strong, 0.5),
        "unrelated": 0.5 * smooth(2),
    }[name]
    for members in (torch.stack([strong, weak]), torch.stack([weak, strong])):
        merged = affine(members)
        assert bool(merged.map.isfinite().all())
        assert float(fitted(merged).max()) < 20
        assert correlation(merged.map, strong) > 0.5
        assert float(merged.uncertainty.mean()) > 0.05
        assert float(merged.uncertainty.max()) < 3


def test_a_member_and_its_negative_are_merged_to_a_finite_map() -> None:
    truth = smooth(1)
    merged = affine(torch.stack([truth, 1 - truth]))
    assert abs(correlation(merged.map, truth)) > 0.999
    assert float(merged.uncertainty.mean()) > 0.05


@pytest.mark.parametrize("name", ALIGNERS)
def test_flat_members_give_no_nan(name: str) -> None:
    levels = torch.tensor([0.1, 0.5, 0.9])[:, None, None, None]
    for n in (1, 2, 3):
        for members in (levels[:n].expand(n, 1, 6, 7), torch.zeros(n, 1, 6, 7)):
            merged = ALIGNERS[name](members)
            assert float(merged.map.max() - merged.map.min()) == 0
            assert float(merged.uncertainty.max()) < 1e-6
            assert float(fitted(merged).max()) < 10
    many = torch.rand(40, 1, 24, 32, generator=generator(0))  # nothing in common
    merged = ALIGNERS[name](many)
    assert bool(merged.map.isfinite().all())
    assert bool(merged.uncertainty.isfinite().all())


def test_scale_only_keeps_zero_where_it_is() -> None:
    members, _, _ = ensemble(0.2 + 0.8 * smooth(2), 4, 2, shift=False)
    merged = scale_only(torch.cat([members, torch.zeros_like(members[:1])]))
    torch.testing.assert_close(merged.map, 0.2 + 0.8 * smooth(2), atol=1e-5, rtol=0)
    assert float(fitted(merged)[-1]) == 0


def test_median_of_an_even_number_lies_between_the_middle_two() -> None:
    members = torch.tensor([4.0, 1.0, 2.0, 9.0]).reshape(4, 1, 1, 1)
    merged = median(members)
    assert merged.map.item() == 3
    assert merged.uncertainty.item() == 1.5  # of 1, 2, 1, 6
    assert median(members[:2]).uncertainty.item() == 1.5  # two that differ are never certain
    several = torch.randn(7, 3, 5, 6, generator=generator(0))
    ordered = several.sort(0).values
    assert torch.equal(median(several).map, ordered[3])
    assert torch.equal(median(several[:6]).map, several[:6].sort(0).values[2:4].mean(0))


@pytest.mark.parametrize("merge", [closest, mean_direction])
def test_opposite_vectors_give_a_unit_vector(merge: Callable[[Tensor], Merged]) -> None:
    one = unit(torch.randn(3, 8, 9, generator=generator(0)))
    for members in (torch.stack([one, -one]), torch.stack([-one, one])):
        merged = merge(members)
        torch.testing.assert_close(merged.map.norm(dim=0), torch.ones(8, 9))
        assert bool((merged.map[2] >= 0).all())
        torch.testing.assert_close(merged.uncertainty, torch.full((1, 8, 9), 0.5))


def test_members_equally_close_share_a_pixel() -> None:
    one, other = vectors(2)
    both = mean_direction(torch.stack([one, other])).map
    for members in ([one, other], [one, other, other, one]):
        torch.testing.assert_close(closest(torch.stack(members)).map, both, atol=1e-5, rtol=0)
    # otherwise the result is one of the members
    merged, members = closest(vectors(5)).map, vectors(5)
    assert float((members - merged).norm(dim=1).min(0).values.max()) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_normals_are_those_of_diffusers(n: int) -> None:
    from diffusers import MarigoldNormalsPipeline

    members = vectors(n, seed=n)
    for name, merge in (("closest", closest), ("mean", mean_direction)):
        if name == "closest" and n == 2:
            continue  # there the last digit decides for them
        required, uncertainty = MarigoldNormalsPipeline.ensemble_normals(members, True, name)
        merged = merge(members)
        torch.testing.assert_close(merged.map, required[0], atol=1e-6, rtol=0)
        # the reference uses an arc cosine, which resolves small angles to 5e-4 only
        torch.testing.assert_close(merged.uncertainty, uncertainty[0], atol=2e-4, rtol=0)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_res": 16}, {"max_iter": 5, "tol": 1e-6}, {"regularizer": 0.1}, {"reduction": "mean"}],
)
def test_compat_is_diffusers(shift: bool, settings: dict) -> None:
    from diffusers import MarigoldDepthPipeline

    members = ensemble(smooth(), 4, 0, noise=0.05)[0].clamp(0, 1)
    reference = {"regularizer_strength" if k == "regularizer" else k: v for k, v in settings.items()}
    required, uncertainty = MarigoldDepthPipeline.ensemble_depth(members, True, shift, True, **reference)
    merged = diffusers_ensemble(members, shift=shift, **settings)
    assert torch.equal(merged.map, required[0])
    assert torch.equal(merged.uncertainty, uncertainty[0])


@pytest.mark.parametrize("merge", [*(m for m, _ in MERGES.values()), diffusers_ensemble])
def test_unsupported_merges_are_reported(merge: Callable[[Tensor], Merged]) -> None:
    with pytest.raises(ValueError, match=r"n at least 1, not \(1, 24, 32\)"):
        merge(torch.rand(1, 24, 32))
    with pytest.raises(ValueError, match=r"not \(0, 1, 4, 4\)"):
        merge(torch.rand(0, 1, 4, 4))
    if merge is not median:
        with pytest.raises(ValueError, match=r"not \(2, 2, 4, 4\)"):
            merge(torch.rand(2, 2, 4, 4))
    broken = torch.rand(3, 3 if merge in (closest, mean_direction) else 1, 4, 4)
    broken[1, 0, 2, 2] = float("nan")
    with pytest.raises(ValueError, match=r"members \[1\] \(of 3\) have NaN"):
        merge(broken)


def test_compat_has_two_reductions() -> None:
    with pytest.raises(ValueError, match="unknown reduction"):
        diffusers_ensemble(torch.rand(2, 1, 4, 4), reduction="mode")
