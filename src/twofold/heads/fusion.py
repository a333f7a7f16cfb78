"""From all maps of a U-Net to a pyramid of five: the fusion network of Diff-2-in-1 (Zheng et al. 2025).

The maps of each level are resized to the next finer level and projected by a 1x1 convolution; a residual block with
spectral normalisation adds the coarser levels' result. Transposed convolutions give two more levels, finer than the
latent. Sizes follow those of the maps, so a latent may have any height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .norm import BatchNorm

# Of Stable Diffusion: total channels of each level's maps, and channels of the pyramid, coarse to fine.
SD_LEVELS, SD_WIDTHS = (7680, 7040, 4160, 2560), (2048, 176, 64, 40, 24)


class Fusion(nn.Module):
    """Four levels of maps to five, at 1/4, 1/2, 1, 2 and 4 times the latent's size.

    Args:
        levels: total channels of the maps of each level, coarse to fine.
        widths: channels of the output, coarse to fine.

    Raises:
        ValueError: there are not four levels, or not five widths.
    """

    def __init__(self, levels: Sequence[int] = SD_LEVELS, widths: Sequence[int] = SD_WIDTHS) -> None:
        super().__init__()
        if len(levels) != 4 or len(widths) != 5:
            raise ValueError(f"fusion got {len(levels)} levels and {len(widths)} widths; expected 4 and 5")
        deep, low, middle, high, fine = widths
        outs = (deep, low, middle, middle)
        self.join = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in zip(levels, outs, strict=True))
        mixed = ((deep + low, low), (low + middle, middle), (2 * middle, middle))
        self.mix = nn.ModuleList(SpectralBlock(i, o) for i, o in mixed)
        self.norms = nn.ModuleList(BatchNorm(n) for n in (middle, high, fine))
        self.grow = nn.ModuleList((
            nn.ConvTranspose2d(middle, high, 2, 2),
            nn.ConvTranspose2d(high + middle, fine, 2, 2),
        ))  # fmt: skip

    def forward(self, levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Maps by level, coarse to fine, to the pyramid, coarse to fine.

        The fourth map has passed a ReLU and the fifth has not, as the decoders trained on them expect.
        """
        sizes = [level[0].shape[-2:] for level in levels]
        joined = [
            conv(torch.cat([_resized(m, size) for m in level], 1))
            for conv, level, size in zip(self.join, levels, [*sizes[1:], sizes[-1]], strict=True)
        ]
        pyramid = joined[:1]
        for mix, level in zip(self.mix, joined[1:], strict=True):
            pyramid.append(mix(torch.cat([_resized(pyramid[-1], level.shape[-2:]), level], 1)))
        finest = F.relu(self.norms[0](pyramid.pop()))
        twice = F.relu(self.norms[1](self.grow[0](finest)))
        around = torch.cat([twice, _resized(finest, twice.shape[-2:])], 1)
        return [*pyramid, twice, self.norms[2](self.grow[1](around))]


def fusion_sizes(backbone: Backbone, least: int = 8) -> tuple[list[int], list[int]]:
    """Levels and widths of a `Fusion` for ``backbone``, in proportion to its maps as for Stable Diffusion.

    ``least``: minimal channels of the finer maps, a multiple of 8.
    """
    ratio = max(map(max, backbone.levels)) / 1280
    deep = max(128, round(SD_WIDTHS[0] * ratio / 128) * 128)
    widths = [deep, *(max(least, round(w * ratio / 8) * 8) for w in SD_WIDTHS[1:])]
    return [sum(level) for level in backbone.levels], widths


def by_level(features: Sequence[Tensor], backbone: Backbone) -> list[tuple[Tensor, ...]]:
    """The flat maps of `Output.features` grouped by `Backbone.levels`; further maps are dropped.

    Raises:
        ValueError: fewer maps than the backbone has.
    """
    count = sum(map(len, backbone.levels))
    if len(features) < count:
        raise ValueError(f"this head reads all {count} feature maps of the network and got {len(features)}")
    rest = iter(features)
    return [tuple(next(rest) for _ in level) for level in backbone.levels]


class SpectralBlock(nn.Module):
    """A residual block of two 3x3 convolutions and a 1x1 shortcut, each of spectral norm 1.

    Unlike in BigGAN (Brock et al. 2019), which it follows, the shortcut's input has passed normalisation and ReLU too:
    in the released code that ReLU works in place.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1 = BatchNorm(channels, 1e-4, affine=False)
        self.norm2 = BatchNorm(out, 1e-4, affine=False)
        self.conv1, self.conv2 = SpectralConv(channels, out, 3), SpectralConv(out, out, 3)
        self.shortcut = SpectralConv(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``b channels h w`` to ``b out h w``."""
        x = F.relu(self.norm1(x))
        return self.conv2(F.relu(self.norm2(self.conv1(x)))) + self.shortcut(x)


class SpectralConv(nn.Module):
    """A convolution whose weights are divided by their largest singular value (Miyato et al. 2018).

    Each forward pass does one step of power iteration from the direction ``u``, which passes in training update.
    """

    u: Tensor

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        like = nn.Conv2d(channels, out, kernel)
        self.weight, self.bias = like.weight, like.bias
        nn.init.orthogonal_(self.weight)
        self.register_buffer("u", torch.randn(1, out))
        self.folded = False

    def normalised(self) -> Tensor:
        """The weights over their spectral norm, in float32 at least."""
        # Some devices have no autocast to disable, such as meta, on which shapes are checked.
        device = self.weight.device.type
        has_autocast = torch.amp.is_autocast_available(device)
        no_autocast = torch.autocast(device, enabled=False) if has_autocast else nullcontext()
        with no_autocast:
            weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            flat = weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(self.u.to(flat) @ flat, eps=1e-4)
                u = F.normalize(v @ flat.T, eps=1e-4)
                if self.training:
                    self.u.copy_(u)
            return weight / (v @ flat.T @ u.T).squeeze()

    def fold(self) -> None:
        """Divide the stored weights by their norm, for inference; the output stays the same until it is trained again.

        The folded weights have norm 1 by the same estimate, so a saved head gives the same output when it is loaded.
        """
        with torch.no_grad():
            self.weight.copy_(self.normalised())
        self.folded = True

    def train(self, mode: bool = True) -> SpectralConv:
        """As of any module; in training the weights are divided at every forward pass."""
        self.folded = self.folded and not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """``b channels h w`` to ``b out h w``."""
        weight = self.weight if self.folded else self.normalised().to(self.weight.dtype)
        return F.conv2d(x, weight, self.bias, padding=self.weight.shape[-1] // 2)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=False)
