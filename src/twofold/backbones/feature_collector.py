"""Collects feature maps and attention probabilities of a U-Net with forward hooks.

`feature_layers` lists the layers after which a map is collected, which are the blocks of the CompVis implementation;
Diff-2-in-1 (arXiv 2411.05005) reads all of them. Stable Diffusion has 25: 6, 6, 6 and 7 at its four resolution levels.
A down- or upsampler belongs to the block before it. The list is derived from the modules of a U-Net.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

# Which feature maps a forward pass returns, coarse to fine:
# False: none.
# True: the output of each up block.
# "pyramid": the outputs of the up blocks and the maps of the image encoder, in the order of `Backbone.pyramid`.
# "all": the maps of all `feature_layers`, in the order of `Backbone.levels`.
# "attention": the same, followed by cross-attention probabilities ``b tokens h w`` of each level except the finest.
FeatureSet = bool | Literal["pyramid", "all", "attention"]


@dataclass(frozen=True)
class FeatureLayer:
    """A module whose output is collected, and the number of channels of the output."""

    name: str
    channels: int


def feature_layers(unet: Any) -> tuple[tuple[FeatureLayer, ...], ...]:
    """The layers of a ``UNet2DConditionModel`` whose outputs are collected.

    They are grouped by resolution level, coarse to fine; within a level, they are in the order of execution.
    """
    widths = unet.config.block_out_channels
    levels: list[list[FeatureLayer]] = [[] for _ in widths]  # fine to coarse
    levels[0].append(FeatureLayer("conv_in", widths[0]))
    for i, block in enumerate(unet.down_blocks):
        levels[i] += [FeatureLayer(f"down_blocks.{i}.{name}", widths[i]) for name in _layers(block)]
        if block.downsamplers is not None:
            levels[i + 1].append(FeatureLayer(f"down_blocks.{i}.downsamplers.0", widths[i]))
    levels[-1].append(FeatureLayer("mid_block", widths[-1]))
    for k, block in enumerate(unet.up_blocks):
        i = len(widths) - 1 - k
        names = _layers(block)
        if block.upsamplers is not None:
            # The output of the last layer is collected after upsampling, so it belongs to the next level.
            names = names[:-1]
            levels[i - 1].append(FeatureLayer(f"up_blocks.{k}.upsamplers.0", widths[i]))
        # The upsampled map of the previous block precedes the maps of this block.
        levels[i] += [FeatureLayer(f"up_blocks.{k}.{name}", widths[i]) for name in names]
    return tuple(tuple(level) for level in reversed(levels))


def _attentions(block: nn.Module) -> list[nn.Module]:
    """The attention layers of a block; empty for a block class without cross-attention."""
    return list(block.get_submodule("attentions").children()) if "attentions" in block._modules else []


def _layers(block: nn.Module) -> list[str]:
    """Names of the layers of a block whose outputs are collected."""
    count = len(_attentions(block))
    kind = "attentions" if count else "resnets"
    return [f"{kind}.{j}" for j in range(count or len(list(block.get_submodule("resnets").children())))]


def cross_attentions(unet: Any) -> dict[int, tuple[str, ...]]:
    """Names of the cross-attention modules of the down and up blocks, by level, counted from the coarsest.

    The finest level is excluded, as in VPD (Zhao et al. 2023): its maps have the resolution of the latent, and their
    computation takes longer than the network itself.
    """
    deepest = len(unet.config.block_out_channels) - 1
    levels: dict[int, list[str]] = {}
    for side, blocks in (("down_blocks", unet.down_blocks), ("up_blocks", unet.up_blocks)):
        for k, block in enumerate(blocks):
            level = deepest - k if side == "down_blocks" else k
            for j, layer in enumerate(_attentions(block)):
                count = len(list(layer.get_submodule("transformer_blocks").children()))
                names = [f"attentions.{j}.transformer_blocks.{m}.attn2" for m in range(count)]
                if level < deepest:
                    levels.setdefault(level, []).extend(f"{side}.{k}.{name}" for name in names)
    return {level: tuple(levels[level]) for level in sorted(levels)}


@dataclass
class FeatureCollector:
    """The maps collected in one forward pass.

    Attributes:
        maps: feature maps by index in the requested set.
        attention: attention probabilities ``b pixels tokens``, summed over layers, by level.
    """

    maps: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)

    def features(self, unet: Any, feature_set: FeatureSet) -> tuple[Tensor, ...]:
        """The requested maps, coarse to fine; see `FeatureSet`. Attention is averaged over layers and heads."""
        maps = tuple(self.maps[i] for i in range(len(self.maps)))
        if feature_set != "attention":
            return maps
        ends = list(accumulate(map(len, feature_layers(unet))))
        attention = [
            (self.attention[level] / len(names))
            .transpose(1, 2)
            .unflatten(2, maps[ends[level] - 1].shape[-2:])
            for level, names in cross_attentions(unet).items()
        ]
        return (*maps, *attention)


@contextmanager
def collect_features(unet: Any, feature_set: FeatureSet) -> Generator[FeatureCollector]:
    """Context in which a forward pass of ``unet`` stores the maps of ``feature_set`` in the returned collector."""
    collector, hooks = FeatureCollector(), []
    modules = []
    if feature_set is True or feature_set == "pyramid":
        modules = list(unet.up_blocks)
    elif feature_set:
        modules = [unet.get_submodule(layer.name) for level in feature_layers(unet) for layer in level]
    try:
        for index, module in enumerate(modules):
            hooks.append(module.register_forward_hook(partial(_store_map, collector.maps, index)))
        if feature_set == "attention":
            for level, names in cross_attentions(unet).items():
                add = partial(_add_attention, collector.attention, level)
                layers = [unet.get_submodule(name) for name in names]
                hooks += [layer.register_forward_pre_hook(add, with_kwargs=True) for layer in layers]
        yield collector
    finally:
        for hook in hooks:
            hook.remove()


def _store_map(maps: dict[int, Tensor], index: int, _module: nn.Module, _inputs: Any, out: Any) -> None:
    """Forward hook that stores the output of a module."""
    maps[index] = out if isinstance(out, Tensor) else out[0]


def _add_attention(sums: dict[int, Tensor], level: int, module: nn.Module, inputs: Any, named: Any) -> None:
    """Forward pre-hook that adds the attention probabilities of a layer to the sum of its level."""
    probs = attention_probs(module, inputs[0], named["encoder_hidden_states"])
    sums[level] = probs if level not in sums else sums[level] + probs


def attention_probs(attention: Any, hidden: Tensor, text: Tensor) -> Tensor:
    """Attention probabilities of each pixel over the text tokens, averaged over heads: ``b pixels tokens``.

    They are computed again here, because the fused kernel of the layer does not return them.
    """
    query = attention.to_q(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    key = attention.to_k(text).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    scores = torch.matmul(query, key.transpose(-1, -2)) * attention.scale
    return scores.float().softmax(-1).mean(1).to(hidden.dtype)
