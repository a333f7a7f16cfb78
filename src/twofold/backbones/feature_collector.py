"""Feature maps and attention probabilities of a U-Net, collected by hooks that exist for one call only.

`feature_layers` lists the output of every block (Diff-2-in-1, arXiv 2411.05005, reads all of them): 25 maps of Stable
Diffusion, 6, 6, 6 and 7 at its four levels. The order is that of CompVis' numbering: after each input block, the middle
block and each output block; a down- or upsampler closes its block. The list is derived from the modules, so it holds
for any U-Net of the family.
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

# Which features a forward pass returns. ``False``: none. ``True``: one map a level, of the decoding path. ``pyramid``:
# those and the image encoder's, by stride. ``all``: every block's. ``attention``: every block's, and cross-attention
# probabilities, one map a level except the finest.
FeatureSet = bool | Literal["pyramid", "all", "attention"]


@dataclass(frozen=True)
class FeatureLayer:
    """A module whose output is collected, and the channels of that output."""

    name: str
    channels: int


def feature_layers(unet: Any) -> tuple[tuple[FeatureLayer, ...], ...]:
    """The block outputs of a ``UNet2DConditionModel`` by level, coarse to fine; within a level, in forward order."""
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
            # The last layer's output is collected after upsampling: it belongs to the next level.
            names = names[:-1]
            levels[i - 1].append(FeatureLayer(f"up_blocks.{k}.upsamplers.0", widths[i]))
        # A level's upsampled map comes from the block before it, and precedes the level's own maps.
        levels[i] += [FeatureLayer(f"up_blocks.{k}.{name}", widths[i]) for name in names]
    return tuple(tuple(level) for level in reversed(levels))


def _attentions(block: nn.Module) -> list[nn.Module]:
    """A block's attention layers; none for a block class without cross-attention."""
    return list(block.get_submodule("attentions").children()) if "attentions" in block._modules else []


def _layers(block: nn.Module) -> list[str]:
    count = len(_attentions(block))
    part = "attentions" if count else "resnets"
    return [f"{part}.{j}" for j in range(count or len(list(block.get_submodule("resnets").children())))]


def cross_attentions(unet: Any) -> dict[int, tuple[str, ...]]:
    """Names of the cross-attention modules of the down and up blocks, by level, counted from the coarsest.

    The finest level is left out: its maps would be as large as the latent, and cost more than the network itself (VPD,
    Zhao et al. 2023, leaves them out).
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
    """The maps collected in one call.

    Attributes:
        maps: feature maps by index, in the order of the requested set.
        attention: by level with cross-attention, sums over layers of ``b pixels tokens``.
    """

    maps: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)

    def features(self, unet: Any, feature_set: FeatureSet) -> tuple[Tensor, ...]:
        """Maps in order, coarse to fine, then those of attention, ``b tokens h w``, a mean over layers and heads."""
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
    """Collect ``feature_set`` from the calls made inside; all hooks are removed on exit, also after an error."""
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
    """A forward hook that stores a module's output."""
    maps[index] = out if isinstance(out, Tensor) else out[0]


def _add_attention(sums: dict[int, Tensor], level: int, module: nn.Module, inputs: Any, named: Any) -> None:
    """A forward pre-hook that adds a layer's attention probabilities to those of its level."""
    probs = attention_probs(module, inputs[0], named["encoder_hidden_states"])
    sums[level] = probs if level not in sums else sums[level] + probs


def attention_probs(attention: Any, hidden: Tensor, text: Tensor) -> Tensor:
    """Softmax attention of each pixel over the text tokens, a mean over heads: ``b pixels tokens``.

    Computed beside the layer, whose fused kernel does not return it.
    """
    query = attention.to_q(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    key = attention.to_k(text).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    scores = torch.matmul(query, key.transpose(-1, -2)) * attention.scale
    return scores.float().softmax(-1).mean(1).to(hidden.dtype)
