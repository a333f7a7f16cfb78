"""The UperNet head: its shape in the published setting, any image size, a batch of one, and training."""

import json
from types import SimpleNamespace

import pytest
import torch

import golden
from twofold.heads import HEADS, UperNetHead, make_head

CHANNELS = (16, 24, 32, 32)
STRIDE8 = SimpleNamespace(stride=8)


def tiny(classes=5, **changes):
    torch.manual_seed(0)
    return UperNetHead(classes, CHANNELS, width=16, **changes)


def features(h, w, count=2):
    """Coarse to fine, what a U-Net of four levels gives for a latent of h w."""
    rng = torch.Generator().manual_seed(0)
    half, quarter = (-(-h // 2), -(-w // 2)), (-(-h // 4), -(-w // 4))
    sizes = zip(CHANNELS[::-1], (quarter, half, (h, w), (h, w)), strict=True)
    return tuple(torch.randn(count, c, *size, generator=rng) for c, size in sizes)


def test_it_is_as_wide_as_published():
    with torch.device("meta"):
        head = UperNetHead(40)
    state = {k: tuple(v.shape) for k, v in head.state_dict().items()}
    assert state["pyramid.bottleneck.conv.weight"] == (512, 1280 + 4 * 512, 3, 3)
    assert state["fuse.conv.weight"] == (512, 4 * 512, 3, 3)
    assert state["classify.weight"] == (40, 512, 1, 1)
    assert [state[f"laterals.{i}.conv.weight"][1] for i in range(3)] == [320, 640, 1280]
    convs = 4 * 1280 * 512 + (1280 + 2048) * 512 * 9 + (320 + 640 + 1280) * 512
    convs += 3 * 512 * 512 * 9 + 2048 * 512 * 9
    assert sum(p.numel() for p in head.parameters()) == convs + 12 * 2 * 512 + 40 * 513
    assert all(v.is_floating_point() for v in head.state_dict().values())


@pytest.mark.parametrize("h, w", [(8, 12), (7, 9), (5, 6), (1, 1)])
@torch.no_grad()
def test_logits_are_stride_times_the_latent_and_of_each_image_alone(h, w):
    head, taps = tiny().eval(), features(h, w)
    output = head(torch.zeros(2, 4, h, w), taps, STRIDE8)
    assert output.shape == (2, 5, 8 * h, 8 * w)
    assert head(torch.zeros(2, 4, h, w), taps, SimpleNamespace(stride=4)).shape[-1] == 4 * w
    alone = head(torch.zeros(1, 4, h, w), tuple(f[1:] for f in taps), STRIDE8)
    torch.testing.assert_close(output[1:], alone, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_answers_do_not_depend_on_the_batch():
    head = tiny().eval()
    taps = features(6, 8)
    both = head(torch.zeros(2, 4, 6, 8), taps, STRIDE8)
    alone = head(torch.zeros(1, 4, 6, 8), tuple(f[1:] for f in taps), STRIDE8)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-6)


def test_the_normalisation_is_that_of_torch():
    layer = tiny().fuse.norm
    oracle = torch.nn.BatchNorm2d(16)
    x = torch.randn(2, 16, 3, 4) * 3 + 1
    torch.testing.assert_close(layer(x), oracle(x))
    torch.testing.assert_close(layer.running_var, oracle.running_var)
    torch.testing.assert_close(layer.eval()(x), oracle.eval()(x))


def test_a_batch_of_one_image_can_be_trained():
    head = tiny(dropout=0.0)
    output = head(torch.zeros(1, 4, 4, 4), features(4, 4, count=1), STRIDE8)
    output.square().mean().backward()
    assert bool(output.isfinite().all())
    assert all(p.grad is not None for p in head.parameters())
    assert not head.pyramid.stages[0].norm.running_mean.any()
    assert head.pyramid.stages[1].norm.running_mean.any()


def test_it_can_be_trained_on_classes():
    head = tiny(classes=3, dropout=0.0)
    taps = features(4, 4)
    ids = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    ids = ids.repeat_interleave(8, 1).repeat_interleave(8, 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(torch.zeros(2, 4, 4, 4), taps, STRIDE8), ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


@torch.no_grad()
def test_it_is_recreated_from_its_config():
    net = golden.backbone()
    head = make_head("upernet", net, 7)
    assert head.config["channels"] == [32, 64, 64, 64]
    assert head.config["width"] == 24
    head = head.double().eval()
    taps = net(torch.zeros(1, 4, 7, 9).double(), torch.tensor([1]), golden.text(), features=True).features
    output = head(torch.zeros(1, 4, 7, 9), taps, net)
    assert output.shape == (1, 7, 56, 72)
    again = HEADS["upernet"](**json.loads(json.dumps(head.config)))
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.double().eval()(torch.zeros(1, 4, 7, 9), taps, net), output)


def test_invalid_head_arguments_are_reported():
    with pytest.raises(ValueError, match="at least 2"):
        UperNetHead(1)
    with pytest.raises(ValueError, match="expected at least one each"):
        UperNetHead(3, channels=())
    with pytest.raises(ValueError, match="4 feature maps got 2"):
        tiny()(torch.zeros(2, 4, 4, 8), features(4, 8)[:2], STRIDE8)
