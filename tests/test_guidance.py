"""Classifier-free guidance, and the sampling loop's arguments."""

import pytest
import torch

from twofold.diffusion import Schedule, guided, randn_tensor, sample


def test_guidance_extrapolates_from_the_unconditional_prediction() -> None:
    x = torch.randn(2, 1, 3, 3)
    predict = guided(lambda x, t: x + 1, lambda x, t: x - 1, 3.0)
    torch.testing.assert_close(predict(x, 0), x - 1 + 3 * 2)


def test_without_guidance_the_unconditional_prediction_is_never_made() -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    def conditional(x: torch.Tensor) -> torch.Tensor:
        return x

    assert guided(conditional, fails, 1.0) is conditional


def test_lcm_needs_generators_where_it_adds_noise() -> None:
    schedule = Schedule.from_betas(0.00085, 0.012)
    x = torch.randn(1, 1, 2, 2)
    with pytest.raises(ValueError, match="pass rngs="):
        sample(lambda x, t: x, x, schedule, [900, 400], "lcm")


def test_steps_lead_to_the_scales_that_are_passed() -> None:
    """With x0 and the noise known, the latent after the last step is their sum at the last scales."""
    schedule = Schedule.from_betas(0.00085, 0.012)
    rng = torch.Generator().manual_seed(0)
    x0, noise = randn_tensor((2, 1, 4, 4), rng, torch.zeros(1)).chunk(2)
    x = schedule.add_noise(x0, noise, torch.tensor([700]))[0]
    for sampler in ("ddim", "euler", "dpmpp_2m"):
        scales = schedule.scales_after([700, 300], (0.8, 0.6))
        found = sample(lambda x, t: x0, x, schedule, [700, 300], sampler, scales=scales)
        torch.testing.assert_close(found, 0.8 * x0 + 0.6 * noise, rtol=1e-4, atol=1e-5)
    found = sample(lambda x, t: x0, x, schedule, [700], scales=[scales[-1]], noise=noise + 1)
    torch.testing.assert_close(found, 0.8 * x0 + 0.6 * (noise + 1), rtol=1e-4, atol=1e-5)
