"""DPM-Solver++(2M) against diffusers' own, against the solution in closed form, and against DDIM."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from twofold.backbones import new
from twofold.diffusion import Schedule, ddim, dpmpp_2m, dpmpp_2m_timesteps, from_x0, sample, to_x0
from twofold.generate.config import GenerationConfig
from twofold.generate.images import ImageGenerator
from twofold.generate.sampling import sampling_plan

KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
SCHEDULES = {
    **{
        f"{kind}, {'to pure noise' if pure else 'as ever'}": Schedule.from_betas(
            0.00085, 0.012, zero_snr=pure, prediction_type=kind
        )
        for kind in ("epsilon", "v", "x0")
        for pure in (False, True)
        if not (pure and kind == "epsilon")
    },
    "flow": Schedule.flow(),
}
SPREAD = 0.5  # of the Gaussian below


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(4, 4, 3, padding=1).double().requires_grad_(False)


@pytest.fixture
def start() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def exact(schedule: Schedule):
    """What a perfect network sees in latents that are normally distributed around 0.3, read through `to_x0`."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.scales_like(t, x)
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        x0 = 0.3 + gain * (x - alpha * 0.3)
        output = from_x0(x0, (x - alpha * x0) / sigma, alpha, sigma, schedule.prediction_type)
        return to_x0(output, x, alpha, sigma, schedule.prediction_type)

    return denoise


def solution(x: Tensor, schedule: Schedule, t: int) -> Tensor:
    """The limit of sampling from ``x`` at ``t``: the probability-flow equation to time step 1, and a forward pass.

    The equation keeps the quantile.
    """
    (alpha, sigma), (to_alpha, to_sigma) = (schedule.scales(torch.tensor([at])) for at in (t, 1))
    wider = (to_alpha**2 * SPREAD**2 + to_sigma**2).sqrt() / (alpha**2 * SPREAD**2 + sigma**2).sqrt()
    return exact(schedule)(to_alpha * 0.3 + (x - alpha * 0.3) * wider, torch.ones(len(x), dtype=torch.long))


def off(found: Tensor, required: Tensor) -> float:
    return float((found - required).square().mean().sqrt())


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 14, 15, 25])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_diffusers(network, start, kind, spacing, steps):
    config = {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": kind, "timestep_spacing": spacing, "steps_offset": int(spacing == "leading"),
    }  # fmt: skip
    oracle = DPMSolverMultistepScheduler(
        **config, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", lower_order_final=True
    )
    oracle.set_timesteps(steps)
    ours = Schedule.from_config(config)
    expected = start
    for t in oracle.timesteps:
        expected = oracle.step(network(expected), t, expected).prev_sample

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return to_x0(network(x), x, *ours.scales_like(t, x), ours.prediction_type)

    found = sample(denoise, start, ours, oracle.timesteps.tolist(), "dpmpp_2m")
    # diffusers keeps its tables in float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_on_a_rectified_flow_it_equals_diffusers(network, start, steps):
    """There the scales are given by hand: diffusers uses levels between the 1000 time steps."""
    oracle = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    oracle.set_timesteps(steps)
    ours = Schedule.flow()
    expected = start
    for t in oracle.timesteps:
        expected = oracle.step(network(expected), t, expected).prev_sample

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return to_x0(network(x), x, *ours.scales_like(t, x), "flow")

    found = sample(denoise, start, ours, (oracle.sigmas[:-1].double() * 1000).tolist(), "dpmpp_2m")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_first_step_is_that_of_ddim_and_so_is_one_next_to_pure_noise(name, network, start):
    schedule = SCHEDULES[name]
    t = torch.full((2,), 700)
    here, there = (schedule.scales_like(t - d, start) for d in (0, 100))
    x0 = network(start)
    assert torch.equal(dpmpp_2m(start, x0, here, there), ddim(start, x0, here, there))
    ones, zeros = torch.ones(2, 1, 1, 1).double(), torch.zeros(2, 1, 1, 1).double()
    pure, clean = (zeros, ones), (ones, zeros)
    for before, aim in ((pure, there), (here, there), (schedule.scales_like(t + 50, start), clean)):
        found = dpmpp_2m(start, x0, here, aim, (x0 + 1, before))
        assert torch.equal(found, ddim(start, x0, here, aim))
    second = dpmpp_2m(start, x0, here, there, (x0 + 1, schedule.scales_like(t + 50, start)))
    assert not torch.equal(second, ddim(start, x0, here, there))
    one = sample(exact(schedule), start, schedule, [600], "dpmpp_2m")
    assert torch.equal(one, exact(schedule)(start, torch.full((2,), 600)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_perfect_denoiser_gives_x0_in_any_number_of_steps(name, start):
    schedule = SCHEDULES[name]
    clean, noise = start[:1], start[1:]
    for begin in (schedule.step_at(1.0), 600, 7):
        x, _, _ = schedule.add_noise(clean, noise, torch.tensor([begin]))
        for steps in (1, 2, 3, 8, 50):
            times = dpmpp_2m_timesteps(schedule, begin, steps)
            found = sample(lambda x, t: clean, x, schedule, times, "dpmpp_2m")
            torch.testing.assert_close(found, clean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_converges_to_ddim_in_fewer_steps(name, start):
    schedule = SCHEDULES[name]
    denoise, required = exact(schedule), solution(start, schedule, 600)
    far = {}
    for steps in (8, 16, 32, 64):
        times = dpmpp_2m_timesteps(schedule, 600, steps)
        far[steps] = [
            off(sample(denoise, start, schedule, times, how), required) for how in ("ddim", "dpmpp_2m")
        ]
        print(name, steps, far[steps])
    assert all(second < first / 3 for first, second in far.values())
    # Twice the steps: half of DDIM's distance, a quarter of a second order's, but for rounded time steps.
    assert far[64][0] == pytest.approx(far[16][0] / 4, rel=0.4)
    assert far[64][1] < far[16][1] / 8
    even = [600 - round(i * 599 / 7) for i in range(8)]
    assert far[8][1] < off(sample(denoise, start, schedule, even), required) / 3


def test_time_steps_begin_and_end_exactly_and_are_even_in_the_log_of_signal_to_noise():
    for schedule in SCHEDULES.values():
        for begin in (1, 2, 9, 300, 600, schedule.step_at(1.0)):
            for steps in (1, 2, 7, 50, 1000):
                times = dpmpp_2m_timesteps(schedule, begin, steps)
                assert len(times) == min(steps, begin)
                assert times[0] == begin
                assert times[-1] == 1 or len(times) == 1
                assert all(a > b for a, b in pairwise(times))
    alpha, sigma = SCHEDULES["v, as ever"].scales(
        torch.tensor(dpmpp_2m_timesteps(SCHEDULES["v, as ever"], 900, 9))
    )
    gaps = (alpha / sigma).log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(8), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_creation_begins_exactly_where_the_source_was_noised_to(name, start):
    schedule = SCHEDULES[name]
    for strength in (0.001, 0.1, 0.6, 1.0):
        plan = sampling_plan(GenerationConfig(strength=strength, steps=9, sampler="dpmpp_2m"), schedule)
        assert plan.start == plan.timesteps[0] == schedule.step_at(strength)
        assert plan.end == (1.0, 0.0)
        denoise = exact(schedule)

        scales = schedule.scales_after(plan.timesteps, plan.end)
        found = sample(denoise, start, schedule, plan.timesteps, "dpmpp_2m", scales=scales)
        assert torch.equal(found, sample(denoise, start, schedule, plan.timesteps, "dpmpp_2m"))


def test_images_do_not_see_their_neighbours(start):
    schedule = SCHEDULES["v, to pure noise"]
    denoise, times = exact(schedule), dpmpp_2m_timesteps(schedule, 999, 6)
    together = sample(denoise, start, schedule, times, "dpmpp_2m")
    for i in range(2):
        assert torch.equal(sample(denoise, start[i : i + 1], schedule, times, "dpmpp_2m")[0], together[i])


def test_the_image_generator_samples_with_it():
    net = new.tiny()
    like = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    captions = ["a chair"]
    drawn = {
        how: ImageGenerator(net, 4, 2.0, sampler=how)(captions, size=(32, 32)) for how in ("ddim", "dpmpp_2m")
    }
    assert drawn["dpmpp_2m"].shape == (1, 3, 32, 32)
    assert not torch.equal(drawn["ddim"], drawn["dpmpp_2m"])
    with torch.no_grad():
        kept = (net.decode(net.encode(like * 2 - 1)).clamp(-1, 1) + 1) / 2
    near, far = (
        off(ImageGenerator(net, 4, 1.0, sampler="dpmpp_2m")(captions, image=like, strength=s), kept)
        for s in (0.002, 0.9)
    )
    assert near < far
    with pytest.raises(ValueError, match="unknown sampler 'heun'; one of ddim, euler, dpmpp_2m, lcm"):
        draw: Any = ImageGenerator
        draw(net, 4, sampler="heun")(captions, size=(32, 32))


def test_the_commands_know_it_and_write_it_down(tiny_model, tmp_path, capsys):
    from PIL import Image

    from twofold.cli.main import run as command

    arguments = ["generate", "a chair", "--model", str(tiny_model), "--size", "32x32", "--steps", "2"]
    assert command([*arguments, "--out", str(tmp_path / "a"), "--sampler", "dpmpp_2m", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (row["settings"]["sampler"], row["settings"]["steps"]) == ("dpmpp_2m", 2)
    metadata = json.loads(Image.open(tmp_path / "a" / row["path"]).info["twofold"])
    assert metadata["settings"]["sampler"] == "dpmpp_2m", metadata
    assert command([*arguments, "--out", str(tmp_path / "b"), "--sampler", "lcm"]) == 2
    assert "--sampler 'lcm' is unknown; choose ddim or dpmpp_2m" in capsys.readouterr().err


def test_the_program_of_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "generate.md").read_text()
    (program,) = page.split("```python\n")[1:]
    exec(compile(program.split("```")[0], "docs/generate.md", "exec"), {})
