"""Properties of sampling plans: where they start, where they end, and what an oracle denoiser recovers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from twofold.backbones.new import MINIATURE_SCHEDULER
from twofold.diffusion import Schedule, sample, to_x0
from twofold.generate.config import OFFICIAL, GenerationConfig, noise_seed
from twofold.generate.sampling import sampling_plan

# Stable Diffusion 1.5's.
SD = Schedule.from_betas(0.00085, 0.012, prediction_type="epsilon")
V = Schedule.from_config(MINIATURE_SCHEDULER)


def plan_of(strength, steps=20, schedule=SD, **more):
    return sampling_plan(GenerationConfig(strength=strength, steps=steps, **more), schedule)


def denoised(plan, schedule, denoise, clean, noise, sampler="ddim"):
    start = torch.full((len(clean),), plan.start)
    x, _, _ = schedule.add_noise(clean, noise, start)
    rng = torch.Generator().manual_seed(0)
    scales = schedule.scales_after(plan.timesteps, plan.end)
    return sample(denoise, x, schedule, plan.timesteps, sampler, scales=scales, rngs=rng)


def oracle(noise, schedule=SD, seen=None):
    """A denoiser that returns the noise that was added."""

    def denoise(x, t):
        x0 = to_x0(noise, x, *schedule.scales_like(t, x), "epsilon")
        if seen is not None:
            seen.append(x0)
        return x0

    return denoise


def latents(count=64, dtype=torch.float64):
    j = torch.arange(count, dtype=dtype).reshape(1, 4, 4, -1)
    return torch.cos(0.3 * j), torch.sin(1.7 * j)


def test_a_plan_starts_exactly_at_the_noised_time_step_and_ends_nearly_clean():
    for strength in (0.001, 0.03, 0.3, 0.6, 0.77, 1.0):
        for steps in (1, 2, 7, 50):
            plan = plan_of(strength, steps, V)
            assert plan.start == min(max(1, round(1000 * strength)), 999)
            assert plan.timesteps[0] == plan.start
            assert len(plan.timesteps) == min(steps, plan.start)
            assert all(a > b for a, b in zip(plan.timesteps, plan.timesteps[1:], strict=False))
            assert steps == 1 or plan.timesteps[-1] == 1
            assert plan.end == (1.0, 0.0)


def test_an_oracle_denoiser_recovers_the_source():
    clean, noise = latents(dtype=torch.float32)
    for sampler in ("ddim", "euler"):
        found = denoised(plan_of(0.6, sampler=sampler), SD, oracle(noise), clean, noise, sampler)
        torch.testing.assert_close(found, clean, rtol=0, atol=1e-4)


def test_the_official_plan_is_that_of_the_released_code():
    plan = sampling_plan(OFFICIAL, SD)
    assert plan.start == 600
    assert plan.timesteps == tuple(range(589, 0, -12))
    assert sampling_plan(replace(OFFICIAL, strength=0.1), SD).timesteps[:2] == (99, 97)
    assert sampling_plan(replace(OFFICIAL, strength=1.0), SD).timesteps[:2] == (981, 961)
    with pytest.raises(ValueError, match="cannot have 50 steps below time step 40"):
        sampling_plan(replace(OFFICIAL, strength=0.04), SD)


def test_the_official_plan_gives_the_numbers_of_the_released_code():
    """Numbers of the original sampler for the network 0.3 tanh(x) + 1e-4 t."""

    def denoise(x, t):
        output = 0.3 * torch.tanh(x) + 1e-4 * t.reshape(-1, 1, 1, 1)
        return to_x0(output, x, *SD.scales_like(t, x), "epsilon")

    found = denoised(sampling_plan(OFFICIAL, SD), SD, denoise, *latents(dtype=torch.float32)).flatten()
    assert float(found.mean()) == pytest.approx(-0.0496906, abs=2e-6)
    assert float(found.std()) == pytest.approx(1.2923658, abs=2e-6)
    first = torch.tensor([0.58509111, 2.42868638, 0.09375987, -1.07380152])
    torch.testing.assert_close(found[:4], first, rtol=0, atol=3e-6)
    assert float(found[-1]) == pytest.approx(1.05738604, abs=3e-6)


def test_the_official_plan_loses_contrast_first_and_keeps_a_little_noise_last():
    clean, noise = latents()
    seen = []
    found = denoised(sampling_plan(OFFICIAL, SD), SD, oracle(noise, seen=seen), clean, noise)
    alpha, sigma = SD.scales(torch.tensor([600, 589, 0]))
    share = float(alpha[0] / alpha[1])
    assert share == pytest.approx(0.968, abs=5e-4)
    first = share * clean + float((sigma[0] - sigma[1]) / alpha[1]) * noise
    torch.testing.assert_close(seen[0], first, rtol=0, atol=1e-9)
    torch.testing.assert_close(found, alpha[2] * first + sigma[2] * noise, rtol=0, atol=1e-9)
    assert float(sigma[2]) == pytest.approx(0.02915, abs=1e-5)


def test_distance_to_the_source_grows_with_strength():
    """With the best denoiser there is for latents that are normally distributed, of standard deviation 0.8."""

    def denoise(x, t):
        alpha, sigma = SD.scales_like(t, x)
        return alpha * 0.64 * x / (alpha**2 * 0.64 + sigma**2)

    rng = torch.Generator().manual_seed(0)
    clean = 0.8 * torch.randn(8, 4, 8, 8, generator=rng, dtype=torch.float64)
    noise = torch.randn(8, 4, 8, 8, generator=rng, dtype=torch.float64)
    far = []
    for strength in (0.001, 0.1, 0.3, 0.6, 0.9):
        found = denoised(plan_of(strength, 50), SD, denoise, clean, noise)
        far.append(float((found - clean).square().mean().sqrt()))
        # It samples from the same distribution for any start.
        assert float(found.std()) == pytest.approx(0.8, abs=0.05)
    assert far == sorted(far)
    assert far[0] < 0.05
    assert far[-1] > 1


def test_a_consistency_model_runs_at_its_distilled_time_steps():
    plan = plan_of(0.6, 4, sampler="lcm")
    assert plan.timesteps == (599, 459, 299, 159)
    clean, noise = latents(dtype=torch.float32)
    found = denoised(plan, SD, lambda x, t: clean, clean, noise, "lcm")
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="distilled on 30"):
        plan_of(0.6, 31, sampler="lcm")


def test_lcm_adds_fresh_noise_between_steps():
    """Luo et al. 2023, algorithm 1: alpha times the clean latent and sigma times fresh noise, at the next time step."""
    plan, states = plan_of(0.6, 3, sampler="lcm"), []

    def denoise(x, t):
        states.append((int(t[0]), x))
        return torch.zeros_like(x)

    _, noise = latents(dtype=torch.float32)
    sample(denoise, noise, SD, plan.timesteps, "lcm", rngs=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    for (before, x), (t, state) in pairwise(states):
        keep = 0.25 / ((10 * before) ** 2 + 0.25)  # boundary weights: sigma_data 0.5, time steps scaled by 10
        alpha, sigma = (float(s) for s in SD.scales(torch.tensor(t)))
        fresh = torch.randn(x.shape, generator=rng)
        torch.testing.assert_close(state, alpha * keep * x + sigma * fresh)


def test_a_rectified_flow_has_a_plan_but_not_the_official_one():
    flow = Schedule.flow()
    plan = plan_of(0.6, 10, flow)
    assert (plan.start, plan.timesteps[-1]) == (600, 1)
    clean, noise = latents(dtype=torch.float32)

    def denoise(x, t):
        return to_x0(noise - clean, x, *flow.scales_like(t, x), "flow")

    torch.testing.assert_close(denoised(plan, flow, denoise, clean, noise), clean, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="rectified flow"):
        sampling_plan(OFFICIAL, flow)


def test_invalid_configurations_are_refused():
    refused: list[dict[str, Any]] = [
        {"strength": 0.0}, {"strength": 1.1}, {"steps": 0}, {"size": -1}, {"compat": "official"},
        {"sampler": "heun"}, {"label_mode": "guess"}, {"colour": 1},
    ]  # fmt: skip
    for wrong in refused:
        with pytest.raises((ValueError, TypeError)):
            GenerationConfig(**wrong)


def test_every_source_and_index_has_its_own_seed():
    seeds = {noise_seed(s, source, i) for s in (0, 1) for source in ("a", "b", "a/1") for i in (0, 1, 11)}
    assert len(seeds) == 18
    assert noise_seed(0, "a", 0) == noise_seed(0, "a", 0)
    assert max(seeds) < 2**63
