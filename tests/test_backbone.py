"""The Stable Diffusion backbone: outputs of the original modules, features, shapes, prompts and the tokenizer."""

import pytest
import torch

import golden
from twofold.backbones import new
from twofold.heads import LatentHead
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import OneStep
from twofold.tasks import TASKS


@pytest.fixture(scope="module")
def net():
    return golden.backbone()


def close(x, expected):
    """Within 1e-5 of numbers that were printed with six decimals, plus their rounding error of 0.5e-6."""
    assert golden.summary(x) == pytest.approx(expected, abs=1.05e-5)


@torch.no_grad()
def test_one_step_outputs_equal_the_published_numbers(net):
    """Latent, two forward passes, the decoded output and depth (GenPercept: z_x, U(z_x), D(-U/s))."""
    z = net.encode(golden.image())
    close(z, (0.005776, 0.039535, 0.092738, -0.011332, 0.013329))
    close(
        net(z, torch.tensor([1]), golden.text()).prediction,
        (0.000572, 0.244203, 0.796484, -0.043137, -0.179067),
    )
    close(
        net(z, torch.tensor([900]), golden.text()).prediction,
        (-0.000355, 0.242531, 0.792641, -0.040109, -0.179787),
    )

    predictor = DiffusionPredictor(net, TASKS["depth"], OneStep(timestep=1), LatentHead())
    net.embed = lambda prompts, pad=False: golden.text().expand(len(prompts), -1, -1)
    minus = -net(z, torch.tensor([1]), golden.text()).prediction
    close(net.decode(minus), (-0.032040, 0.130464, 0.798869, -0.034644, -0.019503))
    depth = TASKS["depth"].decode(predictor.predict_images((golden.image() + 1) / 2))
    close(depth, (0.483980, 0.063774, 0.868954, 0.488960, 0.485586))


@torch.no_grad()
def test_unet_features_equal_the_published_numbers(net):
    z = net.encode(golden.image())
    features = net(z, torch.tensor([1]), golden.text(), features=True).features
    expected = [
        ((1, 64, 2, 3), (-0.014573, 0.352440, 0.673086)),
        ((1, 64, 4, 6), (0.004577, 0.418946, 1.028724)),
        ((1, 64, 8, 12), (0.002969, 0.159640, 0.348179)),
        ((1, 32, 8, 12), (0.047125, 0.602279, 1.868403)),
    ]
    for feature, (shape, numbers) in zip(features, expected, strict=True):
        assert feature.shape == shape
        assert golden.summary(feature)[:3] == pytest.approx(numbers, abs=1.05e-5)


def test_feature_hooks_are_removed_after_the_call(net):
    z = torch.zeros(1, 4, 8, 12).double()
    with torch.no_grad():
        assert net(z, torch.tensor([1]), golden.text()).features == ()
    assert not any(block._forward_hooks for block in net.unet.up_blocks)


@pytest.mark.parametrize("h, w", [(40, 56), (48, 40), (16, 8)])
def test_backbone_scales_latents_and_accepts_any_multiple_of_the_stride(h, w):
    net = new.tiny()
    net.vae.register_to_config(scaling_factor=0.4)
    image = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1
    t, text = torch.tensor([1]), net.embed(["depth map"])
    with torch.no_grad():
        z = net.encode(image)
        assert z.shape == (1, 4, h // 8, w // 8)
        torch.testing.assert_close(z, 0.4 * net.vae.encode(image).latents)
        torch.testing.assert_close(net.decode(z), net.vae.decode(z / 0.4).sample)
        torch.testing.assert_close(
            net(z, t, text).prediction, net.unet(z, t, encoder_hidden_states=text).sample
        )


def test_empty_prompt_has_two_tokens():
    net = new.tiny()
    assert net.embed([""]).shape[1] == 2
    padded = net.embed([""], pad=True)
    assert padded.shape[1] == net.tokenizer.model_max_length
    torch.testing.assert_close(
        padded[:, :2], net.embed([""])
    )  # attention is causal: padding changes no earlier token


def test_a_trained_tokenizer_encodes_its_captions_and_falls_back_to_bytes():
    from twofold.backbones.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["a room with two chairs", "a table and a lamp"] * 3)
    ids = tokenizer("A room with a LAMP").input_ids
    words = [t.removesuffix("</w>") for t in tokenizer.convert_ids_to_tokens(ids)[1:-1]]
    assert words == ["a", "room", "with", "a", "lamp"]
    unknown = tokenizer("zebra, é!").input_ids[1:-1]
    assert tokenizer.eos_token_id not in unknown  # unknown text is encoded as bytes


def test_full_size_sd21_has_the_published_parameter_counts():
    with torch.device("meta"):
        unet, vae = new.sd21_networks()
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
