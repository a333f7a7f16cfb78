"""Normals with how sure they are: the decoder of Bae et al. (ICCV 2021) on the fused maps of a U-Net (Diff-2-in-1).

A direction and a concentration kappa are painted at the latent's resolution by a convolution, and refined three times,
each time at twice the size, by a network that sees one pixel: in training at some pixels only, the unsurest and some at
random, in use at all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..suggest import did_you_mean
from ..tasks.directions import COSTS, expected_angle, mean_cost
from . import points
from .fusion import SD_LEVELS, SD_WIDTHS, Fusion, SpectralConv, by_level, fitting

LEAST_KAPPA = 0.01
_HIDDEN = 128  # of the networks that see one pixel
# What the losses of the four resolutions are called, coarse to fine.
STAGES = ("eighth", "quarter", "half", "whole")


class BaeHead(nn.Module):
    """All maps of a U-Net to unit vectors ``b 3 h*8 w*8`` and how far off each is expected to be.

    Args:
        levels: channels of all maps of a level together, coarse to fine.
        widths: of the pyramid they are fused to, coarse to fine.
        loss: one of `twofold.tasks.directions.COSTS`.
        share: of the pixels, that are learned from at each resolution; 1 is all of them.
        importance: of these, the part taken because the head is unsure of them.
        compat: ``official`` takes losses as the released code of Bae et al. and of Diff-2-in-1 does: each resolution's
            is the mean over all known pixels of the images that are shown at once, so that an image counts by its
            known pixels, and the pixels at random are drawn from known and unknown ones alike. Otherwise images count
            alike, and only known pixels are drawn while there are enough.

    Raises:
        ValueError: no such loss or switch, a share or a part outside [0, 1], or a U-Net of other than four levels.
    """

    reads_features = "all"
    # Of its config, what is about learning alone: a head goes on under other ones.
    training_options = ("loss", "share", "importance", "compat")

    def __init__(
        self,
        levels: Sequence[int] = SD_LEVELS,
        widths: Sequence[int] = SD_WIDTHS,
        loss: str = "angular_vmf",
        share: float = 0.4,
        importance: float = 0.7,
        compat: str = "",
    ) -> None:
        super().__init__()
        if compat not in ("", "official"):
            raise ValueError(f"a bae head has no compat {compat!r}; it is '' or 'official'")
        if loss not in COSTS:
            raise ValueError(
                f"a bae head has no loss {loss!r}{did_you_mean(loss, COSTS)}; it has {', '.join(COSTS)}"
            )
        if not (0 < share <= 1 and 0 <= importance <= 1):
            raise ValueError(f"share and importance are parts of a whole, not {share:g} and {importance:g}")
        self.config = {
            "levels": list(levels), "widths": list(widths), "loss": loss, "share": share, "importance": importance,
            "compat": compat,
        }  # fmt: skip
        self.fusion = Fusion(levels, widths)
        self.decoder = BaeDecoder(widths)
        self.adopt(self.config)

    def adopt(self, options: Mapping[str, Any]) -> None:
        """Learn from here on with these `training_options`."""
        self.config |= {name: options[name] for name in self.training_options}
        self.cost, self.share, self.importance = options["loss"], options["share"], options["importance"]
        self.official = options["compat"] == "official"

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> BaeHead:
        """A fresh one, as wide beside its maps as that of Stable Diffusion; see `heads.make_head`.

        Raises:
            ValueError: not three channels, the numbers of a vector, or an autoencoder of another stride than 8.
        """
        if channels != 3:
            raise ValueError(
                f"a bae head paints unit vectors of 3 channels, not {channels}; for anything else use another head"
            )
        if backbone.stride != 8:
            raise ValueError(
                f"a bae head paints 8 pixels a cell, and this model's cells have {backbone.stride}"
            )
        levels, widths = fitting(backbone)
        fitted: dict[str, Any] = {"levels": levels, "widths": widths}
        return cls(**{**fitted, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """All maps (``b c h w``, as `Output.features` of ``all``) to unit vectors ``b 3 h*8 w*8``."""
        return self.decoder(self.fusion(by_level(features, backbone)))[-1][:, :3]

    def with_uncertainty(
        self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and how far off each vector is expected to be, ``b 1 h*8 w*8``, as a share of 180 degrees."""
        said = self.decoder(self.fusion(by_level(features, backbone)))[-1]
        return said[:, :3], expected_angle(said[:, 3:]) / 180

    def loss(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        canvas: Tensor,
        known: Tensor,
        rngs: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """What each example costs at each of the four resolutions, to be added; each ``b``.

        Args:
            x0: not looked at.
            features: all maps.
            backbone: that gave them.
            canvas: unit vectors ``b 3 H W``, the truth.
            known: ``b 1 H W`` bool, where it is known.
            rngs: one an example; the pixels that are learned from are drawn from them.
        """
        maps = self.fusion(by_level(features, backbone))
        if self.share >= 1:
            said = [(_stretched(s, canvas.shape[-2:]), canvas, known) for s in self.decoder(maps)]
        else:
            said = self._sampled(maps, canvas, known, rngs)
        return {
            name: mean_cost(self.cost, s[:, :3], s[:, 3:], wanted, mask, self.official)
            for name, (s, wanted, mask) in zip(STAGES, said, strict=True)
        }

    def _sampled(
        self, maps: Sequence[Tensor], canvas: Tensor, known: Tensor, rngs: Sequence[torch.Generator]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What is said at each resolution, at all pixels of the first, beside the truth there and where it is known."""
        inner = self.decoder.inner(maps)
        coarse = self.decoder.first(inner[0])
        out = [(_stretched(coarse, canvas.shape[-2:]), canvas, known)]
        for stage, level in enumerate(inner):
            size = (2 * coarse.shape[-2], 2 * coarse.shape[-1])
            larger = _stretched(coarse, size)
            mask = F.interpolate(known.float(), size=size, mode="nearest") > 0.5
            unsure = larger[:, 3:].detach()
            where = points.sample(unsure, mask, rngs, self.share, self.importance, self.official)
            said = self.decoder.refined(stage, level, coarse, size, where)
            wanted = points.at(canvas, where, size, "nearest")
            out.append((said, wanted, points.at(known.to(canvas), where, size, "nearest") > 0.5))
            # The rest is what was said before: it is seen by the next network.
            place = where[:, None].expand(-1, 4, -1)
            coarse = larger.flatten(2).scatter(2, place, said[:, :, 0].to(larger)).view_as(larger)
        return out

    def fold(self) -> BaeHead:
        """Normalise the weights once and for all, for use without training; the same numbers come out, sooner."""
        for module in self.modules():
            if isinstance(module, SpectralConv | StandardConv):
                module.fold()
        return self


class BaeDecoder(nn.Module):
    """A pyramid of five maps to vectors and concentrations at four resolutions.

    Args:
        channels: of the maps, coarse to fine. The first's number is that of the decoder's own maps, halved at each
            level.
    """

    def __init__(self, channels: Sequence[int] = SD_WIDTHS) -> None:
        super().__init__()
        deep = channels[0]
        widths = [deep // 2**k for k in range(1, 5)]
        self.begin = nn.Conv2d(deep, deep, 1)
        self.up = nn.ModuleList(
            _Up(i + s, o) for i, s, o in zip([deep, *widths], channels[1:], widths, strict=False)
        )
        self.paint = nn.Conv2d(widths[1], 4, 3, padding=1)
        self.refine = nn.ModuleList(_pixel_network(w + 4) for w in widths[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """``b 4 h w`` at 1, 2, 4 and 8 times the third map's size, all pixels refined: unit vectors, then kappa."""
        inner = self.inner(maps)
        out = [self.first(inner[0])]
        for stage, level in enumerate(inner):
            size = (2 * out[-1].shape[-2], 2 * out[-1].shape[-1])
            out.append(self.refined(stage, level, out[-1], size))
        return out

    def inner(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The decoder's own maps at 1, 2 and 4 times the third map's size."""
        x, out = self.begin(maps[0]), []
        for up, beside in zip(self.up, maps[1:], strict=True):
            x = up(x, beside)
            out.append(x)
        return out[1:]

    def first(self, level: Tensor) -> Tensor:
        """``b 4 h w`` of the coarsest of them."""
        return normalised(self.paint(level))

    def refined(
        self, stage: int, level: Tensor, coarse: Tensor, size: tuple[int, int], where: Tensor | None = None
    ) -> Tensor:
        """``b 4 h w`` of ``size`` from a map and what was said of it; or ``b 4 1 n`` at pixels ``b n`` of that raster.

        The network's first layer sees single pixels and has no bend, so it may stand before the map is made larger:
        the same numbers, with a quarter of the work and of the memory.
        """
        first, *rest = self.refine[stage]  # ty: ignore[not-iterable]
        seen = first(torch.cat([level, coarse.to(level)], 1))
        behind = nn.Sequential(*rest)
        if where is not None:
            return normalised(behind(points.at(seen, where, size)))
        # Image by image where nothing is kept for a gradient: the largest maps of all are made here.
        parts = (seen,) if torch.is_grad_enabled() else seen.split(1)
        return torch.cat([normalised(behind(_stretched(part, size))) for part in parts])


def normalised(x: Tensor) -> Tensor:
    """Four numbers to a unit vector and a kappa above 0.01, ``b 4 ...``, in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    vector, kappa = x[:, :3], x[:, 3:]
    length = vector.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
    return torch.cat([vector / (length + 1e-10), F.elu(kappa) + 1 + LEAST_KAPPA], 1)


class StandardConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and deviation 1 (weight standardisation, Qiao et al. 2019)."""

    folded = False

    def standardised(self) -> Tensor:
        """The weights as they are used, in float32 at least."""
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return weight / (weight.flatten(1).std(1) + 1e-10)[:, None, None, None]

    def fold(self) -> None:
        """Standardise once and for all; see `SpectralConv.fold`."""
        with torch.no_grad():
            self.weight.copy_(self.standardised())
        self.folded = True

    def train(self, mode: bool = True) -> StandardConv:
        """As of any module; weights that learn are standardised anew at every look."""
        self.folded = self.folded and not mode
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        """``b channels h w`` to ``b out h w``."""
        weight = self.weight if self.folded else self.standardised().to(self.weight.dtype)
        return F.conv2d(input, weight, self.bias, padding=self.padding)


class _Up(nn.Module):
    """A map made larger beside a finer one, seen by two convolutions."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            StandardConv(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.LeakyReLU(),
            StandardConv(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.LeakyReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.layers(torch.cat([_stretched(x, beside.shape[-2:]), beside], 1))


def _pixel_network(channels: int) -> nn.Sequential:
    sizes = [channels, _HIDDEN, _HIDDEN, _HIDDEN]
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Conv2d(i, o, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(_HIDDEN, 4, 1))


def _stretched(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)
