"""Protocols: published numbers, equality with diffusers' pipelines, and laws."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LCMScheduler,
    MarigoldDepthPipeline,
    MarigoldIntrinsicsPipeline,
    MarigoldNormalsPipeline,
    UNet2DConditionModel,
)
from pydantic import TypeAdapter

import golden
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import PUBLISHED
from twofold.heads import Head, LatentHead
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import DenoiserOutput, MultiStep, Noise, OneStep, Protocol, multi_resolution
from twofold.tasks import TASKS

SD = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


# Published numbers: see tests/golden.py for the networks


@pytest.fixture(scope="module")
def net():
    return golden.backbone()


def doubled(net):
    """The same network with 8 input channels, as Marigold begins: weights twice, halved; the bias once."""
    config = dict(net.unet.config)
    unet = UNet2DConditionModel.from_config({**config, "in_channels": 8}).double()
    state = net.unet.state_dict()
    weight = state["conv_in.weight"]
    unet.load_state_dict({**state, "conv_in.weight": weight.repeat(1, 2, 1, 1) * 0.5})
    return StableDiffusion(unet.eval(), net.vae, torch.nn.Identity(), None, golden.SCHEDULER)


@torch.no_grad()
def solve(net, protocol, monkeypatch=None, start=None):
    """The prediction for the golden image with the golden prompt."""

    def look(query):
        output = net(query.x, query.t, golden.text())
        return DenoiserOutput(query.to_x0(output.prediction))

    if start is not None and monkeypatch is not None:
        monkeypatch.setattr("twofold.protocols.multi_step.randn_tensor", lambda shape, rng, like: start)
    return protocol.sample(look, net.encode(golden.image()), torch.Generator(), net.schedule).x0


def gaussian():
    """The initial state of the published stochastic samplers."""
    return torch.sin(0.9 * torch.arange(384.0) + 0.2).reshape(1, 4, 8, 12).double()


def walk(betas, steps=10, start="image"):
    return MultiStep(
        steps=steps, start=start, condition="replace" if start == "image" else "concat",
        noise=Noise(*betas), spacing="leading", offset=1, final="x0",
    )  # fmt: skip


def close(x, expected, tolerance=1e-4):
    assert golden.summary(x)[: len(expected)] == pytest.approx(expected, abs=tolerance)


def test_published_numbers_of_sampling_from_the_image(net):
    close(
        solve(net, walk((0.00085, 0.012))),
        (0.004940, 0.387948, 1.464766, -0.043574, 0.261312),
    )
    close(solve(net, walk((0.1360, 0.192))), (0.000320, 0.325440, 1.118617))


def test_published_numbers_of_sampling_from_noise(net, monkeypatch):
    wide = doubled(net)
    found = solve(wide, walk((0.00085, 0.012), start="gaussian"), monkeypatch, gaussian())
    close(found, (-0.007167, 0.681582, 1.851776, 0.260264, -0.256086))
    found = solve(wide, walk((0.1360, 0.192), start="gaussian"), monkeypatch, gaussian())
    close(found, (-0.018407, 0.431207, 1.407284))


def test_at_beta_one_ten_steps_are_one(net, monkeypatch):
    one, ten = (solve(net, walk((1, 1), steps)) for steps in (1, 10))
    assert torch.equal(one, ten)
    assert torch.equal(one, solve(net, OneStep(timestep=1)))
    wide = doubled(net)
    one, ten = (solve(wide, walk((1, 1), steps, "gaussian"), monkeypatch, gaussian()) for steps in (1, 10))
    assert torch.equal(one, ten)
    close(one, (-0.006239, 0.270796, 0.844440, 0.032404, 0.141343))


# diffusers' pipelines


def tiny_pipeline(kind, scheduler, parts=1, **options):
    """A Marigold pipeline with random weights, without a text encoder; its empty prompt is a constant."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=4 + 4 * parts, out_channels=4 * parts, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2), cross_attention_dim=16, sample_size=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32), norm_num_groups=8,
    )  # fmt: skip
    pipe = kind(
        unet=unet.eval(), vae=vae.eval(), scheduler=scheduler, text_encoder=None, tokenizer=None, **options
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.empty_text_embedding = torch.sin(0.3 * torch.arange(32.0)).reshape(1, 2, 16)
    config = {**scheduler.config}
    net = StableDiffusion(unet, vae, None, None, config, {"": pipe.empty_text_embedding[0]})
    return pipe, net


def photo(h=64, w=96):
    rng = torch.Generator().manual_seed(3)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=rng), (h, w), mode="bilinear")[0]


def schedulers():
    trailing = {**SD, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    for steps in (1, 3, 4, 7, 10):
        yield f"trailing-{steps}", DDIMScheduler(**trailing), MultiStep(steps=steps, final="prev")
    for steps in (4, 10):
        protocol = MultiStep(steps=steps, spacing="leading", final="prev")
        yield f"leading-{steps}", DDIMScheduler(**SD), protocol
    yield "lcm-1", LCMScheduler(**SD), MultiStep(steps=1, sampler="lcm", final="prev")


@pytest.mark.parametrize("name, scheduler, protocol", schedulers(), ids=[x[0] for x in schedulers()])
@pytest.mark.parametrize("size, working", [((64, 96), 0), ((50, 70), 0), ((50, 70), 88), ((90, 120), 64)])
def test_depth_equals_diffusers(name, scheduler, protocol, size, working):
    """At the image's size, enlarged, and reduced, each resized back."""
    pipe, net = tiny_pipeline(
        MarigoldDepthPipeline, scheduler, prediction_type="depth", scale_invariant=True, shift_invariant=True,
        default_denoising_steps=1, default_processing_resolution=0,
    )  # fmt: skip
    image = photo(*size)
    expected = pipe(
        image, num_inference_steps=protocol.steps, generator=torch.Generator().manual_seed(5),
        processing_resolution=working, match_input_resolution=True,
    ).prediction  # fmt: skip
    found = DiffusionPredictor(net, TASKS["depth"], protocol, LatentHead(), OutputConfig(prompt=""))(
        image, working, seed=5
    )
    np.testing.assert_allclose(found.array, expected[0, ..., 0], atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_sampling_equals_diffusers(steps):
    pipe, net = tiny_pipeline(
        MarigoldDepthPipeline, LCMScheduler(**SD), prediction_type="depth", default_denoising_steps=1,
        default_processing_resolution=0,
    )  # fmt: skip
    image = photo()
    expected = pipe(
        image, num_inference_steps=steps, generator=torch.Generator().manual_seed(5), processing_resolution=0
    ).prediction
    protocol = MultiStep(steps=steps, sampler="lcm", final="prev")
    found = DiffusionPredictor(net, TASKS["depth"], protocol, LatentHead(), OutputConfig(prompt=""))(
        image, seed=5
    )
    np.testing.assert_allclose(found.array, expected[0, ..., 0], atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_normals_equal_diffusers(steps):
    scheduler = DDIMScheduler(**SD, timestep_spacing="trailing", rescale_betas_zero_snr=True)
    pipe, net = tiny_pipeline(
        MarigoldNormalsPipeline, scheduler, use_full_z_range=True, default_denoising_steps=1,
        default_processing_resolution=0,
    )  # fmt: skip
    image = photo()
    expected = pipe(
        image, num_inference_steps=steps, generator=torch.Generator().manual_seed(5), processing_resolution=0
    ).prediction
    protocol = MultiStep(steps=steps, final="prev")
    reading = OutputConfig(prompt="", clip="channels")
    found = DiffusionPredictor(net, TASKS["normals"], protocol, LatentHead(), reading)(image, seed=5)
    np.testing.assert_allclose(found.array, expected[0], atol=1e-4)


@pytest.mark.parametrize("parts", [2, 3])
def test_intrinsic_images_equal_diffusers(parts):
    scheduler = DDIMScheduler(**SD, timestep_spacing="trailing", rescale_betas_zero_snr=True)
    names = ["albedo", "shading", "residual"][:parts]
    pipe, net = tiny_pipeline(
        MarigoldIntrinsicsPipeline, scheduler, parts, default_denoising_steps=4, default_processing_resolution=0,
        target_properties={"target_names": names, **{n: {"prediction_space": "srgb"} for n in names}},
    )  # fmt: skip
    image = photo()
    expected = pipe(
        image, num_inference_steps=4, generator=torch.Generator().manual_seed(5), processing_resolution=0
    ).prediction
    for part in range(parts):
        predictor = DiffusionPredictor(
            net,
            TASKS["albedo"],
            MultiStep(num_outputs=parts, final="prev"),
            LatentHead(),
            OutputConfig(prompt="", output_index=part),
        )
        np.testing.assert_allclose(predictor(image, seed=5).array, expected[part], atol=1e-5)


@torch.no_grad()
def reference(image, net, protocol, sign, seed):
    """One-step methods as in their code: encode, one forward pass, decode. Returns the raw output."""
    rng = torch.Generator().manual_seed(seed)
    posterior = net.vae.encode(image[None] * 2 - 1).latent_dist
    mean = posterior.mean
    z = mean + posterior.std * torch.randn(mean.shape, generator=rng) if protocol.encode == "sample" else mean
    z = z * net.vae.config.scaling_factor
    shown = torch.cat([z, torch.randn(z.shape, generator=rng)], 1) if protocol.condition == "concat" else z
    labels = torch.tensor([protocol.class_labels]) if protocol.class_labels else None
    output = net.unet(
        shown, protocol.timestep, encoder_hidden_states=net.prompt_embeds[""][None], class_labels=labels
    ).sample
    return net.vae.decode(sign * output / net.vae.config.scaling_factor).sample


@pytest.mark.parametrize("key, sign", [
    ("genpercept-depth", -1), ("lotus-depth-d-v1-0", 1), ("lotus-depth-g-v1-0", 1), ("lotus-normal-d-v1-0", 1),
    ("lotus-normal-g-v1-1", 1),
])  # fmt: skip
def test_rows_of_the_table_answer_as_their_own_code_does(key, sign):
    """With its settings the predictor is the method: sign, noise, class numbers, order of channels, reading."""
    (name, how), *_ = PUBLISHED[key].tasks.items()
    net = tiny_one_step(how.protocol)
    image = photo()
    canvas = reference(image, net, how.protocol, sign, seed=5)
    found = DiffusionPredictor(net, TASKS[name], how.protocol, LatentHead(), how)(image, seed=5)
    if name == "normals":
        required = (
            torch.nn.functional.normalize(canvas[0].clamp(-1, 1), dim=0)
            * torch.tensor([-1.0, 1, 1])[:, None, None]
        )
        torch.testing.assert_close(found.map, required, rtol=0, atol=1e-4)
    elif key.startswith("lotus"):  # x / 2 + 0.5, each channel held in range, then the mean
        required = (canvas[0] / 2 + 0.5).clamp(0, 1).mean(0, keepdim=True)
        torch.testing.assert_close(found.map, required, rtol=0, atol=1e-5)
    else:  # the mean, held in range
        required = (canvas[0].mean(0, keepdim=True).clamp(-1, 1) + 1) / 2
        torch.testing.assert_close(found.map, required, rtol=0, atol=1e-5)
    if how.protocol.encode == "sample":  # and not the posterior's mode
        mode = replace(how.protocol, encode="mode")
        other = DiffusionPredictor(net, TASKS[name], mode, LatentHead(), how)(image, seed=5)
        assert not torch.allclose(other.map, found.map, atol=1e-3)


def tiny_one_step(protocol):
    """A small random network for a one-step protocol, with class numbers where it has them."""
    torch.manual_seed(0)
    labels = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    unet = UNet2DConditionModel(
        in_channels=protocol.channels(4), out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2), cross_attention_dim=16, sample_size=8, **(labels if protocol.class_labels else {}),
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32), norm_num_groups=8,
    )  # fmt: skip
    with torch.no_grad():  # so that channels differ and saturate, and a wrong reading shows
        vae.decoder.conv_out.weight.mul_(6)
    text = torch.sin(0.3 * torch.arange(32.0)).reshape(2, 16)
    return StableDiffusion(unet.eval(), vae.eval(), None, None, SD, {"": text})


class Echo(Head):
    """A head that gives one canvas, whatever is read."""

    reads_features = True

    def __init__(self, canvas):
        super().__init__()
        self.canvas = canvas

    def forward(self, x0, features, backbone):
        return self.canvas


def read_by(key, canvas, size):
    """The map that a row of the table makes of ``canvas`` for an image of ``size``."""
    (name, how), *_ = PUBLISHED[key].tasks.items()
    net, reading = tiny_one_step(OneStep()), how.model_copy(update={"pad": False})
    found = DiffusionPredictor(
        net, TASKS[how.task or name], OneStep(), Echo(canvas), reading, size=max(canvas.shape[-2:])
    )
    return found(torch.rand(3, *size)).map


def test_e2e_ft_normals_keep_the_direction_of_any_length():
    """Clipping each channel, as the other methods do, would turn this vector by 18 degrees."""
    canvas = torch.tensor([2.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(-1, -1, 32, 32)
    for key in ("e2e-ft-marigold-normals", "e2e-ft-sd-normals"):
        x, y, z = read_by(key, canvas, (32, 32))[:, 0, 0].tolist()
        assert (x, y, z) == pytest.approx((-2 / 5**0.5, 0, 1 / 5**0.5), abs=1e-6)
    assert read_by("marigold-normals-v1-1", canvas, (32, 32))[:, 0, 0].tolist() == pytest.approx(
        [0.5**0.5, 0, 0.5**0.5], abs=1e-6
    )


@pytest.mark.parametrize("size", [(16, 24), (48, 72)], ids=["smaller", "larger"])
def test_maps_come_back_to_the_image_as_each_method_resizes_them(size):
    canvas = (torch.rand(1, 1, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1).expand(
        -1, 3, -1, -1
    )
    grey = (canvas[:, :1] + 1) / 2
    resized = {
        "genpercept-depth": torch.nn.functional.interpolate(grey, size, mode="bilinear", antialias=True),
        "lotus-depth-d-v1-0": torch.nn.functional.interpolate(grey, size, mode="nearest-exact"),
        "dmp-depth": torch.nn.functional.interpolate(grey, size, mode="bicubic"),
        "marigold-depth-v1-1": torch.nn.functional.interpolate(grey, size, mode="bilinear"),
    }
    for key, required in resized.items():
        torch.testing.assert_close(read_by(key, canvas, size), required[0], rtol=0, atol=1e-6)
    values = list(resized.values())
    for i, a in enumerate(values):
        for b in values[i + 1 :]:
            # Enlarging, antialiasing changes nothing.
            assert (a - b).abs().max() > 0.01 or (size[0] > 32 and a is values[0] and b is values[3])


def test_depth_of_dmp_goes_on_beyond_8_metres():
    levels = torch.tensor([-1.5, 0.0, 1.0, 2.0]).repeat_interleave(8)
    canvas = levels.expand(1, 3, 32, 32)
    depth = read_by("dmp-depth", canvas, (32, 32))[0, 0, ::8].tolist()
    assert depth == [0, 0.5, 1, 1.5]  # of 8 metres
    with pytest.raises(ValueError, match="clip='lower' is for distances"):
        DiffusionPredictor(
            tiny_one_step(OneStep()), TASKS["mask"], OneStep(), LatentHead(), OutputConfig(clip="lower")
        )


def test_odd_sizes_as_the_originals_treat_them():
    """Their latent is rounded down, and the smaller map is stretched; by default nothing is stretched."""
    (name, how), *_ = PUBLISHED["genpercept-depth"].tasks.items()
    net, image = tiny_one_step(how.protocol), photo()[:, :61, :45]
    canvas = reference(image, net, how.protocol, -1, 5)
    assert canvas.shape[-2:] == (56, 40)
    grey = (canvas.mean(1, keepdim=True).clamp(-1, 1) + 1) / 2
    required = torch.nn.functional.interpolate(grey, (61, 45), mode="bilinear", antialias=True)[0]
    predictor = DiffusionPredictor(net, TASKS[name], how.protocol, LatentHead(), how)
    floored = predictor.with_options(odd_sizes="floor")
    torch.testing.assert_close(floored(image).map, required, rtol=0, atol=1e-5)
    assert not torch.allclose(predictor(image).map, required, atol=1e-3)
    even = image[:, :56, :40]
    assert torch.equal(predictor(even).map, floored(even).map)
    assert floored.with_options(ensemble=1).config.odd_sizes == "floor"
    with pytest.raises(
        ValueError, match=r"5x45 pixels is smaller than a latent cell of 8x8.*odd_sizes='pad'"
    ):
        floored(image[:, :5])


def test_minmax_normalization_clips_the_mean_first():
    """E2E-FT and GenPercept v1: the mean of the channels, clipped, and then to its own extremes."""
    (name, how), *_ = PUBLISHED["genpercept-depth-v1"].tasks.items()
    net = tiny_one_step(how.protocol)
    image = photo()
    grey = reference(image, net, how.protocol, -1, 5)[0].mean(0, keepdim=True)
    assert grey.abs().max() > 1  # or else this test could not fail
    required = grey.clamp(-1, 1)
    required = (required - required.min()) / (required.max() - required.min())
    reading = how.model_copy(update={"pad": False})
    found = DiffusionPredictor(net, TASKS[name], how.protocol, LatentHead(), reading)(image, seed=5)
    torch.testing.assert_close(found.map, required, rtol=0, atol=1e-5)


def test_the_value_before_the_last_step_is_another(net):
    """What E2E-FT reads is x0; the state after the step would be another result."""
    before, after = (
        solve(net, MultiStep(4, start="image", condition="replace", final=f, noise=Noise()))
        for f in ("x0", "prev")
    )
    assert not torch.allclose(before, after, atol=1e-3)


# Laws


PROTOCOLS = {
    "one step": OneStep(),
    "one step beside noise": OneStep(condition="concat", prediction_type="x0", timestep=999),
    "from noise": MultiStep(),
    "from zeros": MultiStep(1, start="zeros"),
    "from the image": MultiStep(5, start="image", condition="replace"),
    "oracle": MultiStep(5, start="image", condition="replace", use_image_as_noise=True),
    "consistency": MultiStep(2, sampler="lcm"),
    "three parts": MultiStep(num_outputs=3),
    "euler": MultiStep(3, sampler="euler", noise=Noise()),
    "beta one": MultiStep(3, noise=Noise(1, 1), spacing="leading"),
    "flow": MultiStep(3, noise=Noise(prediction_type="flow")),
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return PROTOCOLS[request.param]


def echo(query):
    """A network whose output depends on its input."""
    output = torch.tanh(query.state * 1.3 + query.x.mean(1, keepdim=True))
    return DenoiserOutput(query.to_x0(output))


SCHEDULE = Noise(zero_snr=True).schedule


def test_protocols_come_back_from_files(protocol):
    adapter = TypeAdapter(Protocol)
    assert adapter.validate_json(adapter.dump_json(protocol)) == protocol


def test_an_answer_does_not_depend_on_its_neighbours(protocol):
    image = torch.randn(4, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    rngs = [torch.Generator().manual_seed(s) for s in (7, 8, 9, 7)]
    together = protocol.sample(echo, image, rngs, SCHEDULE).x0
    assert together.shape == (4, 4 * protocol.num_outputs, 6, 5)
    assert together.isfinite().all()
    for i, seed in enumerate((7, 8, 9, 7)):
        alone = protocol.sample(echo, image[i : i + 1], [torch.Generator().manual_seed(seed)], SCHEDULE).x0
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_only_a_random_protocol_depends_on_the_seed(protocol):
    image = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    first, second = (
        protocol.sample(echo, image, [torch.Generator().manual_seed(s)], SCHEDULE).x0 for s in (1, 2)
    )
    assert torch.equal(first, second) != protocol.is_stochastic


def test_a_perfect_network_predicts_the_target(protocol):
    """Shown what training shows and answering rightly, the network's word reads as the target."""
    from twofold.diffusion import from_x0

    rng = torch.Generator().manual_seed(1)
    image = torch.randn(3, 4, 6, 5, generator=rng)
    target = torch.randn(3, 4 * protocol.num_outputs, 6, 5, generator=rng)
    query = protocol.prepare(image, target, rng, SCHEDULE)
    assert query.x.shape[1] == protocol.channels(4)
    if getattr(protocol, "start", "") == "zeros" or isinstance(protocol, OneStep):
        return  # nothing of the target is in the state: there is no noise to be right about
    noise = (query.state - query.alpha * target) / query.sigma.clamp(min=1e-6)
    output = from_x0(target, noise, query.alpha, query.sigma, query.prediction_type)
    torch.testing.assert_close(query.to_x0(output), target, rtol=1e-3, atol=1e-3)


def test_the_one_step_input_does_not_depend_on_labels():
    """A label that is not a number cannot leak into what the network is shown."""
    image, broken = torch.randn(2, 4, 6, 5), torch.full((2, 4, 6, 5), torch.nan)
    query = OneStep(train_timesteps="random").prepare(
        image, broken, torch.Generator().manual_seed(0), SCHEDULE
    )
    assert query.x.isfinite().all()
    assert len(set(query.t.tolist())) == 2


def test_training_at_one_time_step_is_at_that():
    image = torch.zeros(3, 4, 6, 5)
    query = MultiStep(train_timestep=700).prepare(image, image, torch.Generator().manual_seed(0), SCHEDULE)
    assert query.t.tolist() == [700] * 3
    alpha, sigma = SCHEDULE.scales(query.t)
    torch.testing.assert_close(query.sigma.flatten(), sigma.float())
    torch.testing.assert_close(query.alpha.flatten(), alpha.float())


@pytest.mark.parametrize(
    "protocol", [OneStep(condition="concat", start="zeros"), MultiStep(1, start="zeros")]
)
def test_the_image_latent_precedes_the_state_in_the_input(protocol):
    """Marigold's order of channels, on which the pretrained weights of conv_in depend."""
    image = torch.ones(2, 4, 6, 5)
    query = protocol.prepare(image, 0 * image, torch.Generator().manual_seed(0), SCHEDULE)
    assert torch.equal(query.x[:, :4], image) and not query.x[:, 4:].any()
    shown = []

    def look(query):
        shown.append(query.x)
        return DenoiserOutput(query.state)

    protocol.sample(look, image, torch.Generator().manual_seed(0), SCHEDULE)
    assert torch.equal(shown[0], query.x)


def test_an_oracle_that_uses_the_image_latent_as_noise_is_exact():
    """DMP: the state after a step is alpha x0 + sigma image, at the time step that follows."""
    image = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1)).double()
    states = []

    def look(query):
        states.append((int(query.t), query.state))
        return DenoiserOutput(torch.tanh(query.state))

    protocol = MultiStep(
        3,
        start="image",
        condition="replace",
        use_image_as_noise=True,
        timesteps=(900, 500, 100),
        noise=Noise(),
    )
    protocol.sample(look, image, torch.Generator(), SCHEDULE)
    assert [t for t, _ in states] == [900, 500, 100] and torch.equal(states[0][1], image)
    for (_, before), (t, state) in pairwise(states):
        alpha, sigma = (float(s) for s in Noise().schedule.scales(torch.tensor(t)))
        torch.testing.assert_close(state, alpha * torch.tanh(before) + sigma * image)


def test_euler_s_step_is_ddim_s_in_other_coordinates():
    image = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1)).double()
    times = (999, 700, 300, 40)
    found = [
        MultiStep(sampler=s, timesteps=times, noise=Noise()).sample(
            echo, image, torch.Generator().manual_seed(2), SCHEDULE
        )
        for s in ("ddim", "euler")
    ]
    torch.testing.assert_close(found[0].x0, found[1].x0)


def test_one_leading_step_on_noise_is_refused():
    with pytest.raises(ValueError, match="spacing='trailing'"):
        MultiStep(1, spacing="leading")


def test_beta_one_and_the_state_after_the_step_are_refused():
    with pytest.raises(ValueError, match="final='x0'"):
        MultiStep(3, noise=Noise(1, 1), final="prev")


@pytest.mark.parametrize("wrong", [
    {"start": "image"}, {"condition": "replace"}, {"start": "image", "condition": "replace", "parts": 2}, {"steps": 0},
])  # fmt: skip
def test_contradictions_are_refused(wrong):
    with pytest.raises(ValueError, match=r"start|step|parts"):
        MultiStep(**wrong)


def test_a_network_of_other_channels_is_refused(net):
    with pytest.raises(ValueError, match="the network takes 4"):
        DiffusionPredictor(net, TASKS["depth"], MultiStep(), LatentHead())


@pytest.mark.parametrize("strategy, sizes", [
    ("power_of_two", [64, 32, 8, 1]),  # divided by 1, 2, 4, 8: faster and faster
    ("every_layer", [32, 16, 8, 4, 2, 1]),
    ("original", [64, (16, 32), (1, 8)]),  # by r ** i, r from 2 to 4
    ("random_step", [(16, 32), (4, 16), (1, 8)]),  # by r
])  # fmt: skip
def test_each_strategy_has_its_own_levels(strategy, sizes, monkeypatch):
    import twofold.protocols.noise as module

    seen, enlarge = [], module.F.interpolate
    monkeypatch.setattr(
        module.F, "interpolate", lambda x, **k: (seen.append(x.shape[-1]), enlarge(x, **k))[1]
    )
    multi_resolution(torch.zeros(1, 1, 64, 64), torch.Generator().manual_seed(0), 0.9, strategy)
    if isinstance(sizes[1], int):
        assert seen == sizes
    for found, required in zip(seen, sizes, strict=False):
        low, high = (required, required) if isinstance(required, int) else required
        assert low <= found <= high
    assert len(seen) >= len(sizes)


@pytest.mark.parametrize("strategy", ["original", "every_layer", "power_of_two", "random_step"])
def test_level_i_of_multi_resolution_noise_weighs_k_to_the_i(strategy, monkeypatch):
    """Level i lights pixel i alone, so the ratio of pixels is that of the weights, whatever the final deviation."""
    import twofold.protocols.noise as module

    level = iter(range(100))

    def one_pixel(x, size, **how):
        lit = torch.zeros(*x.shape[:2], *size)
        lit[..., 0, next(level)] = 1
        return lit

    monkeypatch.setattr(module.F, "interpolate", one_pixel)
    strength = torch.tensor([0.9, 0.5])
    mixed = multi_resolution(torch.zeros(2, 1, 64, 64), torch.Generator().manual_seed(0), strength, strategy)
    count = next(level)
    assert count >= 3
    found = mixed[:, 0, 0, :count] / mixed[:, 0, 0, :1]
    torch.testing.assert_close(found, strength[:, None] ** torch.arange(count))


def test_marigold_s_annealed_strength_is_proportional_to_the_time_step(monkeypatch):
    """0.9 t / T, of each image its own; constant without annealing (Ke et al. 2024, supplement)."""
    import twofold.protocols.multi_step as module

    seen = []
    monkeypatch.setattr(
        module, "multi_resolution", lambda noise, rng, strength, kind: (seen.append(strength), noise)[1]
    )
    image = torch.zeros(4, 4, 8, 8)
    for annealed in (True, False):
        protocol = MultiStep(noise_strategy="original", noise_strength=0.9, annealed=annealed)
        query = protocol.prepare(image, image, torch.Generator().manual_seed(0), SCHEDULE)
        required = 0.9 * query.t / 1000 if annealed else torch.full((4,), 0.9)
        torch.testing.assert_close(seen.pop().float(), required.float())


@pytest.mark.parametrize("strategy", ["original", "every_layer", "power_of_two", "random_step"])
def test_coarser_noise_keeps_unit_variance(strategy):
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 4, 32, 32, generator=rng)
    mixed = multi_resolution(noise, rng, 0.9, strategy)
    assert mixed.std().item() == pytest.approx(1, abs=1e-5)
    smooth = [x[..., 1:, :].sub(x[..., :-1, :]).std() for x in (mixed, noise)]
    assert smooth[0] < 0.9 * smooth[1]  # neighbours have become alike
    none = multi_resolution(noise, rng, 0.0, strategy)
    if strategy in ("original", "power_of_two"):  # their first level is the full size again, at weight 1
        assert none.std().item() == pytest.approx(1, abs=1e-5)
    annealed = multi_resolution(noise, rng, torch.tensor([0.0, 0.3, 0.6, 0.9]), strategy)
    assert annealed.std().item() == pytest.approx(1, abs=1e-5)


def test_odd_sizes_is_an_option_of_predict_and_evaluate(tmp_path, tiny_model, capsys):
    from twofold.cli.main import run
    from twofold.image import read_map, write_image

    write_image(tmp_path / "a.png", photo(61, 83))
    maps = []
    for how in ("pad", "floor"):
        words = [
            "predict",
            str(tmp_path / "a.png"),
            "--model",
            str(tiny_model),
            "--task",
            "depth",
            "--size",
            "native",
        ]
        assert run([*words, "--odd-sizes", how, "--out", str(tmp_path / how)]) == 0
        maps.append(read_map(tmp_path / how / "a_depth.npy"))
    assert maps[0].shape == maps[1].shape == (1, 61, 83)
    assert not torch.equal(*maps)
    assert run(["evaluate", "--data", str(tmp_path), "--odd-sizes", "stretch"]) == 2
    assert "--odd-sizes" in capsys.readouterr().err


def test_multi_resolution_noise_of_one_example_has_unit_deviation():
    """A micro-batch shares one in the originals: its examples then have other ones (numbers of their own code)."""
    strengths = torch.tensor([0.0, 0.3, 0.6, 0.9])
    found = torch.zeros(4)
    for seed in range(100):
        rng = torch.Generator().manual_seed(seed)
        found += (
            multi_resolution(torch.randn(4, 4, 48, 48, generator=rng), rng, strengths).std((1, 2, 3)) / 100
        )
    assert found.tolist() == pytest.approx([0.92, 0.93, 0.97, 1.14], abs=0.03)
    rng, image = (
        torch.Generator().manual_seed(0),
        torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(1)),
    )
    protocol = MultiStep(noise_strategy="original", noise=Noise(1, 1), train_timestep=900)
    # At beta = (1, 1) the state is the noise.
    state = protocol.prepare(image, image, rng, Noise().schedule).state
    assert state.std().item() == pytest.approx(1, abs=1e-5)
