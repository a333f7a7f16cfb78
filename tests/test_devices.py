"""Sampling, prediction and generation on a device without float64 (MPS): the same numbers as on the CPU."""

from __future__ import annotations

import pytest
import torch

from far_device import Far, far_device, near
from twofold.backbones import new
from twofold.checkpoints.model import Model
from twofold.checkpoints.settings import ModelSettings
from twofold.diffusion import Schedule, dpmpp_2m_timesteps, sample
from twofold.generate.images import ImageGenerator
from twofold.heads import LatentHead, make_head
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.finite import NonFiniteError, check_finite
from twofold.protocols import DenoiserOutput, ModelInput, MultiStep, Noise, OneStep
from twofold.tasks import TASKS

PROTOCOLS = {
    "marigold": MultiStep(steps=4),
    "final prev": MultiStep(steps=3, final="prev", spacing="leading"),
    "euler": MultiStep(steps=3, sampler="euler", noise=Noise()),
    "lcm": MultiStep(steps=3, sampler="lcm", noise=Noise()),
    "flow": MultiStep(steps=3, noise=Noise(prediction_type="flow"), sampler="euler"),
    "epsilon": MultiStep(steps=3, noise=Noise(prediction_type="epsilon")),
    "x0": MultiStep(steps=3, noise=Noise(prediction_type="x0")),
    "zeros": MultiStep(steps=1, start="zeros", noise=Noise()),
    "image": MultiStep(
        steps=5, start="image", condition="replace", noise=Noise(), spacing="leading", use_image_as_noise=True
    ),
    "explicit": MultiStep(timesteps=(900, 500, 20), noise=Noise(zero_snr=True)),
    "all noise": MultiStep(steps=2, noise=Noise(1, 1)),
    "mixed": MultiStep(steps=2, noise_strategy="original", noise=Noise()),
    "one step": OneStep(),
    "one step with concatenated noise": OneStep(condition="concat"),
    "one step noised": OneStep(timestep=300, add_noise=True),
}


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def denoise_fn(query: ModelInput) -> DenoiserOutput:
    """A denoiser with the same result on every device."""
    assert query.x.dtype == query.alpha.dtype == query.sigma.dtype == torch.float32
    prediction = 0.5 * query.x[:, -4:] + query.t.reshape(-1, 1, 1, 1).to(query.x.dtype) / 2000
    return DenoiserOutput(query.to_x0(prediction))


def test_device_refuses_float64_and_mixed_devices():
    with far_device() as device:
        x = torch.ones(2, 3).to(device)
        assert isinstance(x, Far)
        assert x.device.type != "cpu"
        assert float((x * 2).sum()) == 12
        for wrong in (
            lambda: torch.ones(2, dtype=torch.float64).to(device), lambda: x.double(),
            lambda: torch.zeros(2, dtype=torch.float64, device=device), lambda: x.new_zeros(2, dtype=torch.float64),
        ):  # fmt: skip
            with pytest.raises(TypeError, match="no float64"):
                wrong()
        with pytest.raises(RuntimeError, match="same device"):
            _ = x + torch.ones(2, 3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_sample_and_prepare_alike(name):
    protocol, schedule = PROTOCOLS[name], Schedule.from_betas(0.00085, 0.012)
    torch.manual_seed(0)
    image, target = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    expected = protocol.sample(denoise_fn, image, generators(2), schedule).x0
    cpu_query = protocol.prepare(image, target, generators(1)[0], schedule)
    with far_device() as device:
        found = protocol.sample(denoise_fn, image.to(device), generators(2), schedule).x0
        query = protocol.prepare(image.to(device), target.to(device), generators(1)[0], schedule)
        target_on_device = query.training_target(target.to(device))
    assert isinstance(found, Far)
    torch.testing.assert_close(near(found), expected)
    for field in ("x", "t", "state", "alpha", "sigma"):
        torch.testing.assert_close(near(getattr(query, field)), getattr(cpu_query, field))
    torch.testing.assert_close(near(target_on_device), cpu_query.training_target(target))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("predicts", ["v", "flow"])
def test_sampling_is_equal_on_a_device_without_float64(sampler, predicts):
    schedule = Schedule.flow() if predicts == "flow" else Schedule.from_betas(0.00085, 0.012, zero_snr=True)
    times = dpmpp_2m_timesteps(schedule, 999, 6) if sampler == "dpmpp_2m" else schedule.timesteps(6)
    x = torch.randn(2, 4, 8, 8)

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.9 * x + 0.01

    expected = sample(denoise, x, schedule, times, sampler)
    with far_device() as device:
        found = sample(denoise, x.to(device), schedule, times, sampler)
    torch.testing.assert_close(near(found), expected)


@pytest.mark.parametrize("kind", ["latent", "light", "bae", "fpn", "upernet", "multitask", "dpt"])
def test_predictors_give_the_same_result_on_the_device(kind):
    """Autoencoder, text encoder, U-Net, sampling, head and task of a model on the device."""
    net = new.tiny()
    task = TASKS["semantic_logits" if kind in ("fpn", "upernet") else "normals"]
    more = {"prompts": ["a chair", "a table"]} if kind == "fpn" else {}
    head = LatentHead() if kind == "latent" else make_head(kind, net, task.out_channels, **more)
    protocol = MultiStep(steps=3, start="image", condition="replace", spacing="leading", offset=1)
    predictor = DiffusionPredictor(net.eval(), task, protocol, head.eval(), size=32)
    images = [torch.rand(3, 32, 24), torch.rand(3, 32, 24)]
    expected = [p.map for p in predictor(images)]
    with far_device() as device:
        net.to(device), head.to(device)
        found = [p.map for p in predictor(images)]
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cpu"
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_generation_is_equal_on_a_device_without_float64(sampler):
    net, start = new.tiny(), torch.rand(1, 3, 32, 32)
    made = ImageGenerator(net, 4, 3.0, sampler)
    expected = made(["a chair"], (32, 32), start, 0.6, 1)
    with far_device() as device:
        net.to(device)
        found = made(["a chair"], (32, 32), start.to(device), 0.6, 1)
    torch.testing.assert_close(near(found), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sampler", "mode"), [("dpmpp_2m", "reencode"), ("euler", "denoise"), ("lcm", "denoise")]
)
def test_synthetic_data_generator_gives_the_same_result_on_the_device(sampler, mode):
    import world
    from twofold.generate import GenerationConfig, SyntheticDataGenerator

    net = new.tiny()
    head = make_head("light", net, 3)
    settings = ModelSettings(name="m", size=32).with_tasks(["depth"], OneStep(), "none", "light")
    how = GenerationConfig(strength=0.6, steps=3, sampler=sampler, label_mode=mode, scoring="cheap")
    generator = SyntheticDataGenerator.from_model(
        Model("m", net, settings, {"depth": head.eval()}), config=how
    )
    expected = generator.generate([world.sphere(1, 32)])[0]
    with far_device() as device:
        net.to(device), head.to(device)
        found = generator.generate([world.sphere(1, 32)])[0]
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1.01 / 255)
    torch.testing.assert_close(found.targets["depth"], expected.targets["depth"], rtol=0.02, atol=0.02)


def test_the_share_of_non_finite_values_is_computed_on_the_device():
    with far_device() as device:
        x = torch.tensor([1.0, float("nan"), 2.0, 3.0]).to(device)
        with pytest.raises(NonFiniteError, match=r"25\.0 %"):
            check_finite(x, "x")


def test_genpercept_encode_depth_gives_the_same_result_on_the_device():
    from twofold.compat.genpercept import encode_depth

    depth, valid = torch.rand(2, 1, 8, 8) * 5 + 0.1, torch.rand(2, 1, 8, 8) > 0.2
    expected, mask = encode_depth(depth, valid)
    with far_device() as device:
        found, known = encode_depth(depth.to(device), valid.to(device))
    torch.testing.assert_close(near(found), expected)
    assert torch.equal(near(known), mask)
