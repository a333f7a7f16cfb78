"""Feature maps of every block of a U-Net: which, in which order, and no hook left."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from twofold.backbones import new
from twofold.backbones.feature_collector import collect_features, cross_attentions, feature_layers


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128), cross_attention_dim=24, attention_head_dim=8, norm_num_groups=8
    ).eval()


def inputs(h=8, w=8):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, h, w, generator=rng), torch.tensor([0, 0]), torch.randn(2, 5, 24, generator=rng)


def reference(unet, x, t, text):
    """The network by hand in CompVis' numbering: after each input block, the middle and each output block."""
    emb = unet.time_embedding(unet.time_proj(t))

    def layer(block, j, x):
        x = block.resnets[j](x, emb)
        attentions = getattr(block, "attentions", None)
        return attentions[j](x, encoder_hidden_states=text, return_dict=False)[0] if attentions else x

    h = unet.conv_in(x)
    maps = [h]
    for block in unet.down_blocks:
        for j in range(len(block.resnets)):
            h = layer(block, j, h)
            maps.append(h)
        for sampler in block.downsamplers or ():
            h = sampler(h)
            maps.append(h)
    skips = list(maps)
    h = unet.mid_block(h, emb, encoder_hidden_states=text)
    maps.append(h)
    for block in unet.up_blocks:
        for j in range(len(block.resnets)):
            h = layer(block, j, torch.cat([h, skips.pop()], 1))
            if j == len(block.resnets) - 1:
                for sampler in block.upsamplers or ():
                    h = sampler(h)
            maps.append(h)
    return maps


@torch.no_grad()
def test_collects_25_maps_in_block_order_by_size(unet):
    x, t, text = inputs()
    maps = reference(unet, x, t, text)
    with collect_features(unet, "all") as collector:
        unet(x, t, encoder_hidden_states=text)
    features = collector.features(unet, "all")
    assert len(maps) == len(features) == 25
    ordered = [m for size in (1, 2, 4, 8) for m in maps if m.shape[-1] == size]
    for found, expected in zip(features, ordered, strict=True):
        assert torch.equal(found, expected)
    assert [len(level) for level in feature_layers(unet)] == [6, 6, 6, 7]
    assert [m.shape[1] for m in features] == [p.channels for level in feature_layers(unet) for p in level]


def test_stable_diffusion_1_5_has_the_published_widths():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**new.sd_unet_config(sd2=False))
    widths = [[p.channels for p in level] for level in feature_layers(unet)]
    assert widths == [
        [1280] * 6,
        [640, *[1280] * 5],
        [320, 640, 640, 1280, 640, 640],
        [320, 320, 320, 640, 320, 320, 320],
    ]
    assert [sum(level) for level in widths] == [7680, 7040, 4160, 2560]


@torch.no_grad()
def test_small_models_give_every_map_at_any_size():
    net = new.tiny()
    z = torch.zeros(1, 4, 5, 7)
    features = net(z, torch.tensor([0]), net.embed([""]), features="all").features
    assert [f.shape[1] for f in features] == [c for level in net.levels for c in level]
    sizes = [(1, 1), (2, 2), (3, 4), (5, 7)]
    assert [tuple(f.shape[-2:]) for f in features] == [
        s for s, level in zip(sizes, net.levels, strict=True) for _ in level
    ]
    # They include the maps of the up blocks, with equal values.
    decoding = net(z, torch.tensor([0]), net.embed([""]), features=True).features
    for one in decoding:
        assert any(f.shape == one.shape and torch.allclose(f, one) for f in features)


@torch.no_grad()
def test_collecting_changes_no_output_and_leaves_no_hook(unet):
    x, t, text = inputs()
    plain = unet(x, t, encoder_hidden_states=text).sample
    for features in (True, "all", "attention"):
        with collect_features(unet, features):
            assert torch.equal(unet(x, t, encoder_hidden_states=text).sample, plain)
    with pytest.raises(KeyError), collect_features(unet, "attention"):
        raise KeyError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


class Recorded(AttnProcessor):
    """diffusers' unfused attention; keeps the probabilities it computes."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        q = attn.head_to_batch_dim(attn.to_q(hidden_states))
        k = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        scores = attn.get_attention_scores(q, k)
        self.kept.append(scores.unflatten(0, (-1, attn.heads)).mean(1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)


@torch.no_grad()
def test_attention_is_the_mean_over_heads_and_layers_of_a_size(unet):
    x, t, text = inputs(8, 16)
    with collect_features(unet, "attention") as collector:
        unet(x, t, encoder_hidden_states=text)
    features = collector.features(unet, "attention")
    attention = features[25:]
    assert [tuple(probs.shape) for probs in attention] == [(2, 5, 2, 4), (2, 5, 4, 8)]
    for level, probs in zip((1, 2), attention, strict=True):
        torch.testing.assert_close(probs.sum(1), torch.ones_like(probs[:, 0]))
        kept: list[torch.Tensor] = []
        modules = [unet.get_submodule(name) for name in cross_attentions(unet)[level]]
        before = [m.processor for m in modules]
        for module in modules:
            module.set_processor(Recorded(kept))
        unet(x, t, encoder_hidden_states=text)
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)
        assert len(kept) == 5  # two layers on the way down, three on the way up
        required = torch.stack(kept).mean(0).transpose(1, 2).unflatten(2, probs.shape[-2:])
        torch.testing.assert_close(probs, required)
