"""What all heads have in common: names, options, sizes, one source of randomness, a state that holds everything."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from twofold.backbones import new
from twofold.backbones.image_encoder import pyramid_channels
from twofold.heads import HEADS, make_head
from twofold.tasks import TASKS, get_task

TAPS = (32, 24, 16, 8)
LEARNED = [name for name in HEADS if name != "latent"]
LEVELS = ((32, 32, 24), (24, 16, 16), (16, 8, 8), (8, 8, 8, 8))
STRIDE8: Any = SimpleNamespace(
    stride=8,
    feature_channels=TAPS,
    levels=LEVELS,
    cross_attention_levels=(1, 2),
    pyramid=pyramid_channels(TAPS, None),
)
ALL = ("bae", "fpn", "multitask")  # read every block's map


def features(h, w, kind="", count=2):
    """Coarse to fine, what a U-Net of four levels gives for a latent of h w."""
    rng = torch.Generator().manual_seed(0)
    eighth, quarter, half = ((-(-h // k), -(-w // k)) for k in (8, 4, 2))
    if kind in ALL:
        sizes = zip(LEVELS, (eighth, quarter, half, (h, w)), strict=True)
        return tuple(torch.randn(count, c, *size, generator=rng) for level, size in sizes for c in level)
    sizes = zip(TAPS, (quarter, half, (h, w), (h, w)), strict=True)
    return tuple(torch.randn(count, c, *size, generator=rng) for c, size in sizes)


def able(kind, channels):
    """The requested number of channels, or 3 for heads that output images only."""
    return 3 if kind == "bae" else channels


def made(kind, channels=3, **options):
    torch.manual_seed(0)
    return make_head(kind, STRIDE8, channels, **options)


@torch.no_grad()
def spread(head):
    """Weights that keep the spread of what goes through, so that the canvas depends on the features visibly."""
    torch.manual_seed(1)
    for weight in head.parameters():
        if weight.ndim > 1:
            weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
    return head


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("channels", [2, 3, 17])
@pytest.mark.parametrize("h, w", [(4, 8), (5, 7), (1, 1)])
@torch.no_grad()
def test_every_head_has_the_requested_channels_at_any_size_and_batch(kind, channels, h, w):
    channels = able(kind, channels)
    head, taps = spread(made(kind, channels).eval()), features(h, w, kind)
    output = head(torch.zeros(2, 4, h, w), taps, STRIDE8)
    assert output.shape == (2, channels, 8 * h, 8 * w)
    for i in range(2):
        alone = head(torch.zeros(1, 4, h, w), tuple(f[i : i + 1] for f in taps), STRIDE8)
        torch.testing.assert_close(output[i : i + 1], alone, rtol=1e-4, atol=1e-4 * float(output.std()))
    assert float((output[0] - output[1]).abs().max()) > 0.01 * float(
        output.std()
    )  # other features, another canvas


@pytest.mark.parametrize("kind", ["light", "dpt", "dpt-relu", "dpt-elu", "multitask"])
@torch.no_grad()
def test_one_output_channel_is_repeated_to_three(kind):
    output = spread(made(kind, 1))(torch.zeros(2, 4, 4, 4), features(4, 4, kind), STRIDE8)
    assert output.shape == (2, 3, 32, 32)
    alike = torch.equal(output, output[:, :1].expand(-1, 3, -1, -1))
    assert alike == (kind != "light")  # which has three independent channels
    assert float(output.std()) > 1e-3


@torch.no_grad()
def test_the_ending_is_in_the_name_and_in_the_config():
    x0, taps = torch.zeros(2, 4, 4, 4), features(4, 4)
    plain, relu = made("dpt"), made("dpt-relu")
    assert [made(k).config["activation"] for k in ("dpt", "dpt-relu", "dpt-elu")] == [
        "identity",
        "relu",
        "elu+1",
    ]
    assert torch.equal(relu(x0, taps, STRIDE8), plain(x0, taps, STRIDE8).clamp(min=0))
    assert made("dpt-elu")(x0, taps, STRIDE8).min() > 0
    assert made("dpt-elu").config["unused_first_residual"]
    assert torch.equal(made("dpt", activation="relu")(x0, taps, STRIDE8), relu(x0, taps, STRIDE8))


@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_a_head_is_its_config_and_its_state(kind):
    head = made(kind, able(kind, 5)).train()
    head(torch.zeros(2, 4, 4, 4), features(4, 4, kind), STRIDE8)  # running statistics move
    again = HEADS[kind](**json.loads(json.dumps(head.config)))
    again.load_state_dict(head.state_dict())
    inputs = torch.zeros(2, 4, 4, 4), features(4, 4, kind), STRIDE8
    assert torch.equal(again.eval()(*inputs), head.eval()(*inputs))


@pytest.mark.parametrize("kind", LEARNED)
def test_all_randomness_is_the_global_generator(kind):
    """With a seed per step, a step is repeatable whatever random numbers were used before."""
    head = made(kind, able(kind, 5)).train()
    inputs = torch.zeros(2, 4, 4, 4), features(4, 4, kind), STRIDE8
    state = {k: v.clone() for k, v in head.state_dict().items()}
    output = []
    for before in (0, 100):
        head.load_state_dict(state)
        torch.rand(before)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            output.append(head(*inputs))
    assert torch.equal(*output)


@torch.no_grad()
def test_dropout_applies_in_training_only():
    head = made("upernet", 5, dropout=0.5)
    inputs = torch.zeros(2, 4, 4, 4), features(4, 4), STRIDE8
    head.train()
    assert not torch.equal(head(*inputs), head(*inputs))
    head.eval()
    assert torch.equal(head(*inputs), head(*inputs))


@pytest.mark.parametrize("kind", ["upernet", "keypoint", "fpn"])
@torch.no_grad()
def test_running_statistics_are_part_of_the_state(kind):
    head = made(kind, 5).train()
    before = {k: v.clone() for k, v in head.state_dict().items()}
    head(torch.zeros(2, 4, 4, 4), features(4, 4, kind), STRIDE8)
    changed = {k for k, v in head.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if "running" in k}
    assert changed == {name for name, _ in head.named_buffers()}


@pytest.mark.parametrize("name", TASKS)
def test_a_head_can_be_created_for_every_task(name):
    task, net = get_task(name), new.tiny()
    for kind in ("light", "dpt"):
        head = make_head(kind, net, task.out_channels)
        assert head.config["out_channels"] in ((1, 3) if task.out_channels == 1 else (task.out_channels,))
    if task.is_image:
        make_head("latent", net, task.out_channels)
    elif task.out_channels != 3:
        with pytest.raises(ValueError, match=f"3 channels, not {task.out_channels}"):
            make_head("latent", net, task.out_channels)


def test_unknown_heads_and_options_are_reported():
    with pytest.raises(ValueError, match=r"unknown head 'dpt-softmax'.*dpt-relu, dpt-elu"):
        made("dpt-softmax")
    with pytest.raises(ValueError, match="dpt head has no option 'depth'; its options: channels, width"):
        made("dpt", depth=3)
    with pytest.raises(ValueError, match="unit vectors of 3 channels, not 1"):
        made("bae", 1)
    with pytest.raises(ValueError, match="latent head has no option 'width'; its options: none"):
        made("latent", width=3)
