"""Laws of the walk that creation takes: where it starts, where it ends, and what an oracle finds on it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from twofold.backbones.new import MINIATURE_SCHEDULER
from twofold.diffusion import Schedule, to_x0
from twofold.generate.config import OFFICIAL, Settings, draw_seed
from twofold.generate.sampling import path, run
from twofold.protocols import Answer

# Stable Diffusion 1.5's.
SD = Schedule.of(0.00085, 0.012, predicts="epsilon")
V = Schedule.from_config(MINIATURE_SCHEDULER)


def at(strength, steps=20, schedule=SD, **more):
    return path(Settings(strength=strength, steps=steps, **more), schedule)


def walked(way, schedule, denoise, clean, noise, sampler="ddim"):
    start = torch.full((len(clean),), way.start)
    x, _, _ = schedule.noised(clean, noise, start)
    rng = torch.Generator().manual_seed(0)
    return run(way, sampler, denoise, x, schedule, rng)[0]


def oracle(noise, schedule=SD, seen=None):
    """A network that knows the noise that was added."""

    def denoise(x, t, last):
        x0 = to_x0(noise, x, *schedule.scales_like(t, x), "epsilon")
        if seen is not None:
            seen.append(x0)
        return Answer(x0)

    return denoise


def latents(count=64, dtype=torch.float64):
    j = torch.arange(count, dtype=dtype).reshape(1, 4, 4, -1)
    return torch.cos(0.3 * j), torch.sin(1.7 * j)


def test_a_walk_begins_exactly_where_the_source_was_noised_to_and_ends_nearly_clean():
    for strength in (0.001, 0.03, 0.3, 0.6, 0.77, 1.0):
        for steps in (1, 2, 7, 50):
            way = at(strength, steps, V)
            assert way.start == min(max(1, round(1000 * strength)), 999)
            assert way.times[0] == way.start
            assert len(way.times) == min(steps, way.start)
            assert all(a > b for a, b in zip(way.times, way.times[1:], strict=False))
            assert steps == 1 or way.times[-1] == 1
            assert way.end == (1.0, 0.0)


def test_an_oracle_finds_the_source_again():
    clean, noise = latents(dtype=torch.float32)
    for sampler in ("ddim", "euler"):
        found = walked(at(0.6, sampler=sampler), SD, oracle(noise), clean, noise, sampler)
        torch.testing.assert_close(found, clean, rtol=0, atol=1e-4)


def test_the_official_walk_is_that_of_the_released_code():
    way = path(OFFICIAL, SD)
    assert way.start == 600
    assert way.times == tuple(range(589, 0, -12))
    assert path(replace(OFFICIAL, strength=0.1), SD).times[:2] == (99, 97)
    assert path(replace(OFFICIAL, strength=1.0), SD).times[:2] == (981, 961)
    with pytest.raises(ValueError, match="takes 50 steps below time step 40"):
        path(replace(OFFICIAL, strength=0.04), SD)


def test_the_official_walk_gives_the_numbers_of_the_original():
    """Numbers of the original sampler for the network 0.3 tanh(x) + 1e-4 t."""

    def denoise(x, t, last):
        said = 0.3 * torch.tanh(x) + 1e-4 * t.reshape(-1, 1, 1, 1)
        return Answer(to_x0(said, x, *SD.scales_like(t, x), "epsilon"))

    found = walked(path(OFFICIAL, SD), SD, denoise, *latents(dtype=torch.float32)).flatten()
    assert float(found.mean()) == pytest.approx(-0.0496906, abs=2e-6)
    assert float(found.std()) == pytest.approx(1.2923658, abs=2e-6)
    first = torch.tensor([0.58509111, 2.42868638, 0.09375987, -1.07380152])
    torch.testing.assert_close(found[:4], first, rtol=0, atol=3e-6)
    assert float(found[-1]) == pytest.approx(1.05738604, abs=3e-6)


def test_the_official_walk_loses_contrast_at_first_and_keeps_a_little_noise_at_last():
    clean, noise = latents()
    seen = []
    found = walked(path(OFFICIAL, SD), SD, oracle(noise, seen=seen), clean, noise)
    alpha, sigma = SD.scales(torch.tensor([600, 589, 0]))
    share = float(alpha[0] / alpha[1])
    assert share == pytest.approx(0.968, abs=5e-4)
    first = share * clean + float((sigma[0] - sigma[1]) / alpha[1]) * noise
    torch.testing.assert_close(seen[0], first, rtol=0, atol=1e-9)
    torch.testing.assert_close(found, alpha[2] * first + sigma[2] * noise, rtol=0, atol=1e-9)
    assert float(sigma[2]) == pytest.approx(0.02915, abs=1e-5)


def test_the_farther_a_source_is_noised_the_farther_is_what_comes_of_it():
    """With the best denoiser there is for latents that are normally distributed, of standard deviation 0.8."""

    def denoise(x, t, last):
        alpha, sigma = SD.scales_like(t, x)
        return Answer(alpha * 0.64 * x / (alpha**2 * 0.64 + sigma**2))

    rng = torch.Generator().manual_seed(0)
    clean = 0.8 * torch.randn(8, 4, 8, 8, generator=rng, dtype=torch.float64)
    noise = torch.randn(8, 4, 8, 8, generator=rng, dtype=torch.float64)
    far = []
    for strength in (0.001, 0.1, 0.3, 0.6, 0.9):
        found = walked(at(strength, 50), SD, denoise, clean, noise)
        far.append(float((found - clean).square().mean().sqrt()))
        # It draws from the same distribution wherever it starts.
        assert float(found.std()) == pytest.approx(0.8, abs=0.05)
    assert far == sorted(far)
    assert far[0] < 0.05
    assert far[-1] > 1


def test_a_consistency_model_is_asked_at_time_steps_that_it_was_taught():
    way = at(0.6, 4, sampler="lcm")
    assert way.times == (599, 459, 299, 159)
    clean, noise = latents(dtype=torch.float32)
    found = walked(way, SD, lambda x, t, last: Answer(clean), clean, noise, "lcm")
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="which has 30 taught ones"):
        at(0.6, 31, sampler="lcm")


def test_a_consistency_model_s_states_are_its_clean_latents_noised_anew():
    """Luo et al. 2023, algorithm 1: alpha times the clean latent and sigma times fresh noise, at the next time step."""
    way, states = at(0.6, 3, sampler="lcm"), []

    def denoise(x, t, last):
        states.append((int(t[0]), x))
        return Answer(torch.zeros_like(x))

    _, noise = latents(dtype=torch.float32)
    run(way, "lcm", denoise, noise, SD, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    for (before, x), (t, state) in pairwise(states):
        keep = 0.25 / ((10 * before) ** 2 + 0.25)  # boundary weights: sigma_data 0.5, time steps scaled by 10
        alpha, sigma = (float(s) for s in SD.scales(torch.tensor(t)))
        fresh = torch.randn(x.shape, generator=rng)
        torch.testing.assert_close(state, alpha * keep * x + sigma * fresh)


def test_a_rectified_flow_walks_too_but_not_officially():
    flow = Schedule.flow()
    way = at(0.6, 10, flow)
    assert (way.start, way.times[-1]) == (600, 1)
    clean, noise = latents(dtype=torch.float32)

    def denoise(x, t, last):
        return Answer(to_x0(noise - clean, x, *flow.scales_like(t, x), "flow"))

    torch.testing.assert_close(walked(way, flow, denoise, clean, noise), clean, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="rectified flow"):
        path(OFFICIAL, flow)


def test_settings_that_mean_nothing_are_refused():
    refused: list[dict[str, Any]] = [
        {"strength": 0.0}, {"strength": 1.1}, {"steps": 0}, {"size": -1}, {"compat": "official"},
        {"sampler": "heun"}, {"label_mode": "guess"}, {"colour": 1},
    ]  # fmt: skip
    for wrong in refused:
        with pytest.raises((ValueError, TypeError)):
            Settings(**wrong)


def test_a_seed_is_its_own_for_each_source_and_index():
    seeds = {draw_seed(s, source, i) for s in (0, 1) for source in ("a", "b", "a/1") for i in (0, 1, 11)}
    assert len(seeds) == 18
    assert draw_seed(0, "a", 0) == draw_seed(0, "a", 0)
    assert max(seeds) < 2**63
