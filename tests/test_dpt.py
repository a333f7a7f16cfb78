"""The DPT head: the published layout, numbers of the original modules, and any size of image."""

from types import SimpleNamespace

import pytest
import torch

import golden
from twofold.heads import HEADS, DPTHead


def layout(width=256, channels=(320, 640, 1280, 1280), first=False):
    """Every tensor of GenPercept's dpt_head_identity, by name."""
    shapes = {}

    def conv(name, out, into, kernel, bias):
        shapes[f"{name}.weight"] = (out, into, kernel, kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    conv("feature_upsample_0.conv", channels[0], channels[0], 3, True)
    for i, c in enumerate(channels):
        conv(f"neck.convs.{i}", width, c, 3, False)
        layer = f"neck.fusion_stage.layers.{i}"
        conv(f"{layer}.projection", width, width, 1, True)
        for r in (1, 2) if i or first else (2,):
            conv(f"{layer}.residual_layer{r}.convolution1", width, width, 3, False)
            conv(f"{layer}.residual_layer{r}.convolution2", width, width, 3, False)
    conv("head.projection", width, width, 3, True)
    conv("head.head.0", width // 2, width, 3, True)
    conv("head.head.2", 32, width // 2, 3, True)
    conv("head.head.4", 1, 32, 1, True)
    return shapes


def shapes(head):
    return {k: tuple(v.shape) for k, v in head.state_dict().items()}


def tiny(**changes):
    return golden.fill(DPTHead(channels=(32, 64, 64, 64), width=16, **changes)).double()


def features(h, w, channels=(64, 64, 64, 32)):
    """What a U-Net of four levels gives for a latent of h w: sides are halved up, and the last block keeps its size."""
    rng = torch.Generator().manual_seed(0)
    half, quarter = (-(-h // 2), -(-w // 2)), (-(-h // 4), -(-w // 4))
    sizes = (quarter, half, (h, w), (h, w))
    return tuple(
        torch.randn(2, c, *size, generator=rng).double() for c, size in zip(channels, sizes, strict=True)
    )


STRIDE8 = SimpleNamespace(stride=8)


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        head = DPTHead()
    assert shapes(head) == layout()
    assert len(head.state_dict()) == 36
    assert sum(p.numel() for p in head.parameters()) == 18_474_753


def test_the_first_version_keeps_two_tensors_more():
    with torch.device("meta"):
        head = DPTHead(activation="elu+1", unused_first_residual=True)
    assert shapes(head) == layout(first=True)
    assert len(head.state_dict()) == 38


@torch.no_grad()
def test_published_numbers():
    """The tiny networks' DPT head (GenPercept, computed with its own modules)."""
    net = golden.backbone()
    z = net.encode(golden.image())
    taps = net(z, torch.tensor([1]), golden.text(), features=True).features
    output = tiny()(z, taps, net)
    assert output.shape == (1, 3, 64, 96)
    expected = (-0.047081, 0.025277, 0.137880, -0.002655, -0.010863)
    assert golden.summary(output[:, :1]) == pytest.approx(expected, abs=1.05e-5)
    assert torch.equal(output[:, 0], output[:, 1])
    assert torch.equal(output[:, 0], output[:, 2])


@torch.no_grad()
def test_multiples_of_four_are_fused_as_the_original_fuses_them():
    """The oracle is the DPT of transformers, whose modules GenPercept's head is made of."""
    from transformers import DPTConfig
    from transformers.models.dpt import modeling_dpt as dpt

    config = DPTConfig(
        neck_hidden_sizes=[32, 64, 64, 64], fusion_hidden_size=256, add_projection=True, head_in_index=-1,
        use_bias_in_fusion_residual=False, use_batch_norm_in_fusion_residual=False,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(1)
    head = DPTHead(channels=(32, 64, 64, 64), width=256, unused_first_residual=True)
    for p in head.parameters():
        p.normal_(0, (2 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1, generator=rng)
    taps = tuple(f[:1].float() for f in features(4, 8))
    fuse, paint = dpt.DPTFeatureFusionStage(config), dpt.DPTDepthEstimationHead(config)
    fuse.load_state_dict(head.neck.fusion_stage.state_dict())
    paint.load_state_dict(head.head.state_dict())
    paint.head[5] = torch.nn.Identity()  # a ReLU there
    fine_first = [head.feature_upsample_0(taps[3]), *taps[2::-1]]
    maps = [conv(tap) for conv, tap in zip(head.neck.convs, fine_first, strict=True)]
    expected = paint(fuse(maps))
    output = head(torch.zeros(1, 4, 4, 8), taps, STRIDE8)
    assert expected.std() > 0.1
    torch.testing.assert_close(output[:, 0], expected, rtol=0, atol=1e-5 * expected.std().item())


@pytest.mark.parametrize("h, w", [(8, 12), (7, 9), (5, 6), (13, 10), (3, 2), (1, 1)])
@torch.no_grad()
def test_the_canvas_is_stride_times_the_latent_and_of_each_image_alone(h, w):
    taps = features(h, w)
    output = tiny()(torch.zeros(2, 4, h, w), taps, STRIDE8)
    assert output.shape == (2, 3, 8 * h, 8 * w)
    assert tiny()(torch.zeros(2, 4, h, w), taps, SimpleNamespace(stride=4)).shape[-1] == 4 * w
    alone = tiny()(torch.zeros(1, 4, h, w), tuple(f[1:] for f in taps), STRIDE8)
    torch.testing.assert_close(output[1:], alone)


@torch.no_grad()
def test_odd_latents_of_a_network_are_those_of_a_larger_one_cut_off():
    """Far from the added border the canvas of 7 x 9 cells is that of the same features, given by hand."""
    net = golden.backbone()
    taps = net(torch.zeros(1, 4, 7, 9).double(), torch.tensor([1]), golden.text(), features=True).features
    assert [tuple(f.shape[-2:]) for f in taps] == [(2, 3), (4, 5), (7, 9), (7, 9)]
    output = tiny()(torch.zeros(1, 4, 7, 9), taps, net)
    torch.testing.assert_close(output, tiny()(torch.zeros(1, 4, 7, 9), taps, STRIDE8))
    assert output.shape == (1, 3, 56, 72) and float(output.std()) > 0


@torch.no_grad()
def test_endings():
    x0, taps = torch.zeros(2, 4, 4, 8), features(4, 8)
    plain = tiny()(x0, taps, STRIDE8)
    assert plain.min() < 0 < plain.max()
    assert torch.equal(tiny(activation="relu")(x0, taps, STRIDE8), plain.clamp(min=0))
    above = torch.where(plain > 0, plain, plain.exp() - 1) + 1
    torch.testing.assert_close(tiny(activation="elu+1")(x0, taps, STRIDE8), above)


@torch.no_grad()
def test_the_unused_weights_are_not_used():
    x0, taps = torch.zeros(2, 4, 4, 8), features(4, 8)
    plain, first = tiny(), tiny(unused_first_residual=True)
    found = first.load_state_dict(plain.state_dict(), strict=False)
    assert all(k.startswith("neck.fusion_stage.layers.0.residual_layer1.") for k in found.missing_keys)
    assert torch.equal(first(x0, taps, STRIDE8), plain(x0, taps, STRIDE8))


@torch.no_grad()
def test_three_channels_are_independent():
    output = tiny(out_channels=3)(torch.zeros(2, 4, 4, 8), features(4, 8), STRIDE8)
    assert output.shape == (2, 3, 32, 64)
    assert not torch.equal(output[:, 0], output[:, 1])


@pytest.mark.parametrize(
    "changes", [{}, {"activation": "elu+1", "unused_first_residual": True, "out_channels": 3}]
)
def test_a_head_is_made_again_from_its_config(changes, tmp_path):
    import json

    head = tiny(**changes)
    again = HEADS["dpt"](**json.loads(json.dumps(head.config)))
    again.load_state_dict(head.state_dict())
    assert again.config == head.config


def test_a_new_head_outputs_small_values_and_can_be_trained():
    torch.manual_seed(0)
    head = DPTHead(channels=(32, 64, 64, 64), width=16)
    taps = tuple(f.float() for f in features(4, 4))
    output = head(torch.zeros(2, 4, 4, 4), taps, STRIDE8)
    assert output.abs().max() < 0.1
    output.square().mean().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_invalid_head_arguments_are_reported():
    with pytest.raises(ValueError, match="identity, relu"):
        DPTHead(activation="softmax")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="0 output channels"):
        DPTHead(channels=(8,), width=8, out_channels=0)
    with pytest.raises(ValueError, match="4 feature maps got 2"):
        tiny()(torch.zeros(2, 4, 4, 8), features(4, 8)[:2], STRIDE8)
