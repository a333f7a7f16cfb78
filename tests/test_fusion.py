"""The fusion network and Bae's decoder against numbers of the original modules, and their own laws."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import official
from twofold.checkpoints.diff2in1_names import DECODER, FUSION
from twofold.heads import BaeHead
from twofold.heads.bae import BaeDecoder, StandardConv, normalised
from twofold.heads.fusion import Fusion, SpectralBlock, SpectralConv, by_level

SD_MAPS = (
    (8, [1280] * 6),
    (16, [640, *[1280] * 5]),
    (32, [320, 640, 640, 1280, 640, 640]),
    (64, [320, 320, 320, 640, 320, 320, 320]),
)
# Mean, standard deviation, first and last number.
PYRAMID = [
    (0.00000844, 0.01095132, 0.00689580, 0.01601184),
    (0.00040978, 0.13500953, -0.12710934, -0.08464395),
    (-0.00778240, 0.12488532, -0.13112606, 0.18430571),
    (0.00878441, 0.01263997, 0.01956763, 0.0),
    (-0.00392229, 0.01707002, -0.02309072, -0.00245590),
]
# Vector and kappa of the middle pixel.
MIDDLE = [
    (0.76778559, -0.43582875, -0.46963666, 1.00199997),
    (0.75788055, -0.53292394, 0.37630989, 0.91871738),
    (0.77460667, -0.39527055, 0.49370609, 0.94381486),
    (0.70313678, -0.42481829, 0.57020003, 0.92745539),
]
WHOLE = (0.70329777, -0.42391304, 0.57067126, 0.92811973)


def put(module, prefix, table, names):
    state = {ours.removeprefix(prefix): table[reference] for ours, reference in names.items()}
    expected = module.state_dict()
    module.load_state_dict({k: v.reshape(expected[k].shape) for k, v in state.items()}, assign=True)
    return module.eval()


def maps(dtype):
    """cos(0.013 j + 0.7 k), j the place in map k."""
    out, k = [], 0
    for size, widths in SD_MAPS:
        level = []
        for c in widths:
            j = torch.arange(c * size * size, dtype=torch.float64)
            level.append(torch.cos(0.013 * j + 0.7 * k).reshape(1, c, size, size).to(dtype))
            k += 1
        out.append(level)
    return out


def full_size(dtype):
    with torch.device("meta"):
        fusion, decoder = Fusion(), BaeDecoder()
    put(fusion, "fusion.", official.filled(official.fusion(), dtype), FUSION)
    return fusion, put(decoder, "decoder.", official.filled(official.decoder(), dtype), DECODER)


def numbers(x):
    flat = x.double().flatten()
    return flat.mean().item(), flat.std().item(), flat[0].item(), flat[-1].item()


@pytest.mark.slow
@pytest.mark.timeout(900)
@torch.no_grad()
def test_published_numbers_of_the_original_modules():
    """At full size, in double precision: a minute, and 3 GB."""
    fusion, decoder = full_size(torch.float64)
    pyramid = fusion(maps(torch.float64))
    for output, expected in zip(pyramid, PYRAMID, strict=True):
        assert numbers(output) == pytest.approx(expected, abs=1e-8)
    found = decoder(pyramid)
    for output, expected in zip(found, MIDDLE, strict=True):
        h, w = output.shape[-2:]
        assert output[0, :, h // 2, w // 2].tolist() == pytest.approx(expected, abs=1e-8)
    assert found[-1].mean((0, 2, 3)).tolist() == pytest.approx(WHOLE, abs=1e-8)


@torch.no_grad()
def test_published_numbers_of_the_coarser_half():
    """The first two of the pyramid, in single precision: seconds."""
    with torch.device("meta"):
        fusion = Fusion()
    put(fusion, "fusion.", official.filled(official.fusion()), FUSION)
    output = fusion(maps(torch.float32))
    for x, expected in zip(output, PYRAMID, strict=True):
        assert numbers(x) == pytest.approx(expected, abs=2e-7)
    assert [tuple(x.shape[1:]) for x in output] == [
        (2048, 16, 16), (176, 32, 32), (64, 64, 64), (40, 128, 128), (24, 256, 256),
    ]  # fmt: skip
    assert output[3].min() == 0
    assert output[4].min() < 0


LEVELS = ((32, 32, 24), (24, 16, 16), (16, 8, 8), (8, 8, 8, 8))
BACKBONE: Any = SimpleNamespace(stride=8, levels=LEVELS)


def features(h, w, count=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    sizes = [(-(-h // k), -(-w // k)) for k in (8, 4, 2, 1)]
    return tuple(
        torch.randn(count, c, *size, generator=rng)
        for level, size in zip(LEVELS, sizes, strict=True)
        for c in level
    )


def head(**options):
    torch.manual_seed(0)
    return BaeHead.from_backbone(BACKBONE, 3, **options).eval()


def test_the_shortcut_sees_what_was_normalised_and_rectified():
    torch.manual_seed(0)
    block = SpectralBlock(6, 4).double().eval()
    for norm in (block.norm1, block.norm2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)

    def norm(x, of):
        return (x - of.running_mean[:, None, None]) / (of.running_var[:, None, None] + 1e-4).sqrt()

    h = F.relu(norm(x, block.norm1))
    expected = block.conv2(F.relu(norm(block.conv1(h), block.norm2))) + block.shortcut(h)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_spectral_norm_converges_to_1_in_forward_passes():
    torch.manual_seed(0)
    conv = SpectralConv(8, 12, 3).double().train()
    with torch.no_grad():
        conv.weight.normal_()
    for _ in range(60):
        weight = conv.normalised()
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    conv.eval()
    before = conv.u.clone()
    conv.normalised()
    assert torch.equal(conv.u, before)


@torch.no_grad()
def test_folding_keeps_outputs_and_state_dict():
    plain, taps = head().double(), tuple(f.double() for f in features(5, 7))
    expected = plain(torch.zeros(0), taps, BACKBONE)
    folded = head().double().fold()
    assert all(m.folded for m in folded.modules() if isinstance(m, SpectralConv | StandardConv))
    torch.testing.assert_close(folded(torch.zeros(0), taps, BACKBONE), expected, rtol=0, atol=1e-8)
    again = head().double()
    again.load_state_dict(folded.state_dict())
    torch.testing.assert_close(again(torch.zeros(0), taps, BACKBONE), expected, rtol=0, atol=1e-8)
    folded.train()
    assert not any(getattr(m, "folded", False) for m in folded.modules())


@torch.no_grad()
def test_pixel_networks_before_upsampling_equal_those_after_it():
    """Written as Bae et al. have it: everything is made larger first."""
    net, taps = head().double(), [f.double() for f in features(5, 7)]
    pyramid = net.fusion(by_level(taps, BACKBONE))
    output, inner = net.decoder(pyramid), net.decoder.inner(pyramid)
    for stage in range(3):
        size = output[stage + 1].shape[-2:]
        larger = [
            F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            for x in (inner[stage], output[stage])
        ]
        expected = normalised(net.decoder.refine[stage](torch.cat(larger, 1)))
        torch.testing.assert_close(output[stage + 1], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_filters_are_standardised():
    conv = StandardConv(5, 7, 3).double()
    weight = conv.standardised().flatten(1)
    torch.testing.assert_close(weight.mean(1), torch.zeros(7).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.std(1), torch.ones(7).double())


def test_four_numbers_become_a_direction_and_a_concentration():
    x = torch.tensor([[3.0, 0, 4, -2], [3, 0, 4, 2], [0, 0, 0, -50]], dtype=torch.float64)[..., None]
    output = normalised(x)[..., 0]
    assert output[0].tolist() == pytest.approx([0.6, 0, 0.8, 0.14533528], abs=1e-8)
    assert output[1, 3].item() == pytest.approx(3.01)
    assert output[2].tolist() == pytest.approx([0, 0, 0, 0.01])


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_vectors(kind):
    taps = features(6, 8)
    expected = head()(torch.zeros(0), taps, BACKBONE)
    output = head().to(kind)(torch.zeros(0), tuple(t.to(kind) for t in taps), BACKBONE)
    torch.testing.assert_close(output.norm(dim=1), torch.ones_like(output[:, 0]))
    assert (output - expected).norm(dim=1).mean() < 0.1


@torch.no_grad()
def test_an_image_s_answer_does_not_depend_on_its_batch():
    net, taps = head(), features(5, 6, count=3)
    together = net(torch.zeros(0), taps, BACKBONE)
    alone = net(torch.zeros(0), tuple(t[1:2] for t in taps), BACKBONE)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_too_few_maps_or_levels_are_refused():
    with pytest.raises(ValueError, match="reads all 13 feature maps of the network and got 4"):
        head()(torch.zeros(0), features(4, 4)[:4], BACKBONE)
    with pytest.raises(ValueError, match="got 3 levels and 5 widths; expected 4 and 5"):
        Fusion((8, 8, 8))
    with pytest.raises(ValueError, match=r"has no loss 'l3'; it has angular_vmf, vmf"):
        head(loss="l3")
    with pytest.raises(ValueError, match="stride 8, and this model's has stride 16"):
        wide: Any = SimpleNamespace(stride=16, levels=LEVELS)
        BaeHead.from_backbone(wide, 3)
