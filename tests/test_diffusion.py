"""Schedules and samplers against diffusers, the oracle of this field."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from twofold.diffusion import Schedule, ddim, from_x0, sample, to_x0, x0_to_prediction
from twofold.diffusion.schedule import betas
from twofold.protocols import Noise

KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
STEPS = (1, 4, 10, 50)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(4, 4, 3, padding=1).double().requires_grad_(False)


@pytest.fixture
def start():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def reading(network, schedule):
    """A denoiser that returns the output of ``network`` as x0."""

    def denoise(x, t):
        return to_x0(network(x), x, *schedule.scales_like(t, x), schedule.prediction_type)

    return denoise


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ddim_equals_diffusers(network, start, kind, zero_snr, spacing, steps):
    if zero_snr and kind == "epsilon":
        pytest.skip("pure noise says nothing about x0 through a noise prediction")
    leading = spacing == "leading"
    config = {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": kind, "clip_sample": False, "set_alpha_to_one": not leading, "steps_offset": int(leading),
        "timestep_spacing": spacing, "rescale_betas_zero_snr": zero_snr,
    }  # fmt: skip
    oracle, ours = DDIMScheduler(**config), Schedule.from_config(config)
    oracle.set_timesteps(steps)
    times = ours.timesteps(steps, spacing, int(leading))
    assert times == oracle.timesteps.tolist()
    expected = start
    for t in oracle.timesteps:
        expected = oracle.step(network(expected), t, expected).prev_sample
    found = sample(reading(network, ours), start, ours, times)
    # diffusers keeps its tables in float32; ours are float64, and 50 steps add the difference up
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("steps", STEPS)
def test_flow_equals_diffusers_euler(network, start, steps):
    oracle, ours = FlowMatchEulerDiscreteScheduler(), Schedule.flow()
    oracle.set_timesteps(steps)
    expected = start
    for t in oracle.timesteps:
        expected = oracle.step(network(expected), t, expected).prev_sample
    found = sample(reading(network, ours), start, ours, oracle.timesteps.tolist())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0", "flow"])
def test_to_x0_undoes_from_x0(kind, start):
    x0, noise = start[:1], start[1:]
    alpha = torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64)
    sigma = 1 - alpha if kind == "flow" else (1 - alpha**2).sqrt()
    x = alpha * x0 + sigma * noise
    torch.testing.assert_close(to_x0(from_x0(x0, noise, alpha, sigma, kind), x, alpha, sigma, kind), x0)


@pytest.mark.parametrize("kind", ["epsilon", "v", "x0", "flow"])
def test_x0_to_prediction_is_the_training_target_and_inverts_to_x0(kind, start):
    x0, noise = start[:1], start[1:]
    alpha = torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64)
    sigma = 1 - alpha if kind == "flow" else (1 - alpha**2).sqrt()
    x = alpha * x0 + sigma * noise
    required = {"epsilon": noise, "v": 0.6 * noise - 0.8 * x0, "x0": x0, "flow": noise - x0}[kind]
    torch.testing.assert_close(from_x0(x0, noise, alpha, sigma, kind), required)
    torch.testing.assert_close(x0_to_prediction(x0, x, alpha, sigma, kind), required)
    # Of any latent, not only the one that x was made of.
    other = x0.flip(-1) + 1
    torch.testing.assert_close(
        to_x0(x0_to_prediction(other, x, alpha, sigma, kind), x, alpha, sigma, kind), other
    )


def test_one_step_at_beta_one_is_ten_steps(network, start):
    """GenPercept's schedule: the input never changes, so only the last step matters, and there is no NaN."""
    config = {"beta_start": 1.0, "beta_end": 1.0, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
                  "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
    schedule = Schedule.from_config(config)
    times = schedule.timesteps(10, "leading", 1)
    assert times[-1] == 1
    denoise, x = reading(network, schedule), start
    for now, after in pairwise(times):
        t, then = torch.full((2,), now), torch.full((2,), after)
        x = ddim(x, denoise(x, t), schedule.scales_like(t, x), schedule.scales_like(then, x))
        assert torch.equal(x, start)
    assert torch.equal(denoise(x, torch.full((2,), times[-1])), -network(start))


def test_schedule_table_of_the_paper():
    """sqrt(alpha_bar) at t = 0, 1, 100, 500, 999, GenPercept's table of beta schedules."""
    table = {
        (0.0002125, 0.003): (0.99989, 0.99979, 0.98613, 0.85165, 0.51210),
        (0.00085, 0.012): (0.99957, 0.99915, 0.94563, 0.52567, 0.06826),
        (0.0034, 0.048): (0.99830, 0.99659, 0.79933, 0.07545, 0.00002),
        (0.1360, 0.192): (0.92952, 0.86397, 0.00054, 0, 0),
        (1.0, 1.0): (0, 0, 0, 0, 0),
    }
    for (start, end), expected in table.items():
        schedule = Schedule.from_config(
            {"beta_start": start, "beta_end": end, "beta_schedule": "scaled_linear"}
        )
        alpha, _ = schedule.scales(torch.tensor([0, 1, 100, 500, 999]))
        assert alpha.tolist() == pytest.approx(expected, abs=6e-6)


def test_betas_are_linear_in_the_root_that_the_family_names():
    """By hand, three steps: the middle one is the mean of the roots, to that power."""
    for family, power in (("linear", 1.0), ("scaled_linear", 2.0), ("power", 3.0)):
        middle = ((0.001 ** (1 / power) + 0.125 ** (1 / power)) / 2) ** power
        required = torch.tensor([0.001, middle, 0.125], dtype=torch.float64)
        torch.testing.assert_close(betas(0.001, 0.125, family, 3, exponent=3.0), required)
    table = Noise(0.001, 0.125, "power", 3.0, steps=3).schedule.alpha_bar
    torch.testing.assert_close(table, (1 - betas(0.001, 0.125, "power", 3, exponent=3.0)).cumprod(0))


def test_pure_noise_does_not_determine_x0(start):
    zero = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="alpha is 0"):
        to_x0(start, start, zero, zero + 1, "epsilon")
