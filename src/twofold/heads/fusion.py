"""From all maps of a U-Net to a pyramid of five: the fusion network of Diff-2-in-1 (Zheng et al. 2025).

The maps of each level are brought to the next finer level's size and joined by a 1x1 convolution, and what the coarser
levels gave is mixed in by a residual block with spectral normalisation. Two more levels, finer than the latent, are
made by transposed convolutions. Sizes follow the maps': a latent of any height and width goes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .norm import BatchNorm

# Of Stable Diffusion: channels of a level's maps together, and of the pyramid, coarse to fine.
SD_LEVELS, SD_WIDTHS = (7680, 7040, 4160, 2560), (2048, 176, 64, 40, 24)


class Fusion(nn.Module):
    """Four levels of maps to five, at 1/4, 1/2, 1, 2 and 4 times the latent's size.

    Args:
        levels: channels of all maps of a level together, coarse to fine.
        widths: channels given, coarse to fine.

    Raises:
        ValueError: there are not four levels, or not five widths.
    """

    def __init__(self, levels: Sequence[int] = SD_LEVELS, widths: Sequence[int] = SD_WIDTHS) -> None:
        super().__init__()
        if len(levels) != 4 or len(widths) != 5:
            raise ValueError(
                f"fusion joins 4 levels of maps to 5, not {len(levels)} to {len(widths)}; it needs a U-Net of 4 levels"
            )
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

        The fourth map is rectified and the fifth is not, as what was trained on them expects.
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


def fitting(backbone: Backbone, least: int = 8) -> tuple[list[int], list[int]]:
    """Levels and widths of a `Fusion` for ``backbone``, as wide beside its maps as Stable Diffusion's.

    ``least``: channels of the finer maps at least, a multiple of 8.
    """
    part = max(map(max, backbone.levels)) / 1280
    deep = max(128, round(SD_WIDTHS[0] * part / 128) * 128)
    widths = [deep, *(max(least, round(w * part / 8) * 8) for w in SD_WIDTHS[1:])]
    return [sum(level) for level in backbone.levels], widths


def by_level(features: Sequence[Tensor], backbone: Backbone) -> list[tuple[Tensor, ...]]:
    """The flat maps of `Output.features` as they belong to `Backbone.levels`; what follows them is left out.

    Raises:
        ValueError: there are fewer maps than the backbone has.
    """
    wanted = sum(map(len, backbone.levels))
    if len(features) < wanted:
        raise ValueError(f"this head reads all {wanted} maps of the network, and was given {len(features)}")
    rest = iter(features)
    return [tuple(next(rest) for _ in level) for level in backbone.levels]


class SpectralBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 beside them, each of spectral norm 1, after normalisation and ReLU.

    Unlike in BigGAN (Brock et al. 2019), after which it is built, what goes beside has been normalised and rectified
    too: there the rectifier works in place.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        # Without a gain and an offset of its own.
        self.norm1 = BatchNorm(channels, 1e-4, affine=False)
        self.norm2 = BatchNorm(out, 1e-4, affine=False)
        self.conv1, self.conv2 = SpectralConv(channels, out, 3), SpectralConv(out, out, 3)
        self.beside = SpectralConv(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``b channels h w`` to ``b out h w``."""
        x = F.relu(self.norm1(x))
        return self.conv2(F.relu(self.norm2(self.conv1(x)))) + self.beside(x)


class SpectralConv(nn.Module):
    """A convolution whose weights are divided by their largest singular value (Miyato et al. 2018).

    One step of power iteration a look, from the direction ``u`` that the last look in training left.
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
        # Some devices have no autocast to switch off, such as meta, on which shapes are checked.
        device = self.weight.device.type
        able = torch.amp.is_autocast_available(device)
        plain = torch.autocast(device, enabled=False) if able else nullcontext()
        with plain:
            weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            flat = weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(self.u.to(flat) @ flat, eps=1e-4)
                u = F.normalize(v @ flat.T, eps=1e-4)
                if self.training:
                    self.u.copy_(u)
            return weight / (v @ flat.T @ u.T).squeeze()

    def fold(self) -> None:
        """Divide once and for all; the same numbers come out until it is trained again.

        The weights that are left have norm 1 by the same measure, so that they may be saved and read as any others.
        """
        with torch.no_grad():
            self.weight.copy_(self.normalised())
        self.folded = True

    def train(self, mode: bool = True) -> SpectralConv:
        """As of any module; weights that learn are divided anew at every look."""
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
