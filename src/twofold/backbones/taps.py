"""Which maps of a U-Net are read: by hooks that live as long as one call.

`points` says where every block's output is (Diff-2-in-1, arXiv 2411.05005, reads them all): 25 maps of Stable
Diffusion, 6, 6, 6 and 7 of its four levels. They are those of CompVis' numbering: after each input block, the middle
block and each output block, where a sampler closes the block it stands in. Derived from the modules, so that any
U-Net of the family has them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

# ``True``: one map a level, of the decoding path. ``pyramid``: those and the image encoder's, by stride. ``all``: every
# block's. ``attention``: those, and how much each place looked at each word, a map a level but the finest.
Taps = bool | Literal["pyramid", "all", "attention"]


@dataclass(frozen=True)
class Point:
    """A module whose output is read, and its channels."""

    name: str
    channels: int


def points(unet: Any) -> tuple[tuple[Point, ...], ...]:
    """Of a ``UNet2DConditionModel``, the outputs of all blocks by level, coarse to fine; in a level, in their order."""
    widths = unet.config.block_out_channels
    levels: list[list[Point]] = [[] for _ in widths]  # fine to coarse
    levels[0].append(Point("conv_in", widths[0]))
    for i, block in enumerate(unet.down_blocks):
        levels[i] += [Point(f"down_blocks.{i}.{name}", widths[i]) for name in _layers(block)]
        if block.downsamplers is not None:
            levels[i + 1].append(Point(f"down_blocks.{i}.downsamplers.0", widths[i]))
    levels[-1].append(Point("mid_block", widths[-1]))
    for k, block in enumerate(unet.up_blocks):
        i = len(widths) - 1 - k
        names = _layers(block)
        if block.upsamplers is not None:
            # The last layer's output is read after it was made larger: it belongs to the next level.
            names = names[:-1]
            levels[i - 1].append(Point(f"up_blocks.{k}.upsamplers.0", widths[i]))
        # A level's upsampled map was made by the block before, and stands before its own.
        levels[i] += [Point(f"up_blocks.{k}.{name}", widths[i]) for name in names]
    return tuple(tuple(level) for level in reversed(levels))


def _layers(block: Any) -> list[str]:
    part = "attentions" if getattr(block, "attentions", None) else "resnets"
    return [f"{part}.{j}" for j in range(len(getattr(block, part)))]


def cross_attentions(unet: Any) -> dict[int, tuple[str, ...]]:
    """Modules that look at the text on the way down and up, by level, counted from the coarsest.

    The finest level's are left out: there the maps would have as many places as the latent, and cost more than the
    network itself (VPD, Zhao et al. 2023, leaves them out).
    """
    deepest = len(unet.config.block_out_channels) - 1
    levels: dict[int, list[str]] = {}
    for side, blocks in (("down_blocks", unet.down_blocks), ("up_blocks", unet.up_blocks)):
        for k, block in enumerate(blocks):
            level = deepest - k if side == "down_blocks" else k
            for j, layer in enumerate(getattr(block, "attentions", None) or ()):
                names = [
                    f"attentions.{j}.transformer_blocks.{m}.attn2"
                    for m in range(len(layer.transformer_blocks))
                ]
                if level < deepest:
                    levels.setdefault(level, []).extend(f"{side}.{k}.{name}" for name in names)
    return {level: tuple(levels[level]) for level in sorted(levels)}


def look_levels(unet: Any) -> tuple[int, ...]:
    """The levels of `cross_attentions`."""
    return tuple(cross_attentions(unet))


@dataclass
class Tapped:
    """What was read in one call.

    Attributes:
        maps: by place in the order asked for.
        looks: by level with cross-attention, sums over layers of ``b places words``.
    """

    maps: dict[int, Tensor] = field(default_factory=dict)
    looks: dict[int, Tensor] = field(default_factory=dict)

    def features(self, unet: Any, taps: Taps) -> tuple[Tensor, ...]:
        """The maps in order, coarse to fine; those of attention last, ``b words h w``, a mean over layers and heads."""
        found = tuple(self.maps[i] for i in range(len(self.maps)))
        if taps != "attention":
            return found
        ends = list(accumulate(map(len, points(unet))))
        looks = [
            (self.looks[level] / len(names)).transpose(1, 2).unflatten(2, found[ends[level] - 1].shape[-2:])
            for level, names in cross_attentions(unet).items()
        ]
        return (*found, *looks)


@contextmanager
def tapped(unet: Any, taps: Taps) -> Generator[Tapped]:
    """Read what ``taps`` says of the calls made inside; no hook is left behind, whatever happens."""
    found, hooks = Tapped(), []

    def keep(place: int, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            found.maps[place] = out if isinstance(out, Tensor) else out[0]

        hooks.append(module.register_forward_hook(hook))

    def watch(level: int, module: Any) -> None:
        def hook(_module: nn.Module, inputs: Any, named: Any) -> None:
            look = _looked(module, inputs[0], named["encoder_hidden_states"])
            found.looks[level] = look if level not in found.looks else found.looks[level] + look

        hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        if taps is True or taps == "pyramid":
            for place, block in enumerate(unet.up_blocks):
                keep(place, block)
        elif taps:
            for place, point in enumerate(p for level in points(unet) for p in level):
                keep(place, unet.get_submodule(point.name))
        if taps == "attention":
            for level, names in cross_attentions(unet).items():
                for name in names:
                    watch(level, unet.get_submodule(name))
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _looked(attention: Any, hidden: Tensor, text: Tensor) -> Tensor:
    """How much each place looks at each word, a mean over heads: ``b places words``.

    Computed beside the layer, whose own fast kernel does not say it.
    """
    query = attention.to_q(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    key = attention.to_k(text).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    scores = torch.matmul(query, key.transpose(-1, -2)) * attention.scale
    return scores.float().softmax(-1).mean(1).to(hidden.dtype)
