"""Normals with uncertainty: the decoder of Bae et al. (ICCV 2021) on the fused maps of a U-Net (Diff-2-in-1).

A convolution predicts a direction and a concentration kappa at the latent's resolution. Three pixel-wise networks
refine them, each at twice the size: in training at a sample of pixels, the most uncertain and some random ones; in
inference at all pixels.
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
from . import pixel_sampling
from .fusion import SD_LEVELS, SD_WIDTHS, Fusion, SpectralConv, by_level, fusion_sizes
from .head import Head

MIN_KAPPA = 0.01
_HIDDEN = 128  # channels of the pixel-wise networks
# Names of the losses of the four resolutions, coarse to fine.
STAGES = ("eighth", "quarter", "half", "whole")


class BaeHead(Head):
    """All maps of a U-Net to unit vectors ``b 3 h*8 w*8`` and the expected error of each.

    Args:
        levels: total channels of the maps of each level, coarse to fine.
        widths: of the fused pyramid, coarse to fine.
        loss: one of `twofold.tasks.directions.COSTS`.
        share: fraction of the pixels that the loss uses at each resolution; 1 uses all.
        importance: fraction of these that are chosen by uncertainty.
        compat: ``official`` computes losses as the released code of Bae et al. and of Diff-2-in-1 does: each
            resolution's is the mean over all valid pixels of a batch, so that an image counts by its valid pixels, and
            random pixels are drawn from valid and invalid ones alike. Otherwise all images have equal weight, and only
            valid pixels are drawn while there are enough.

    Raises:
        ValueError: an unknown loss or compat value, a fraction outside [0, 1], or another number of levels than four.
    """

    kinds = ("bae",)
    reads_features = "all"
    training_options = ("loss", "share", "importance", "compat")
    has_loss = True
    has_uncertainty = True

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
            raise ValueError(f"a bae head has no compat {compat!r}; expected '' or 'official'")
        if loss not in COSTS:
            raise ValueError(
                f"a bae head has no loss {loss!r}{did_you_mean(loss, COSTS)}; it has {', '.join(COSTS)}"
            )
        if not (0 < share <= 1 and 0 <= importance <= 1):
            raise ValueError(f"share is {share:g} and importance {importance:g}; expected (0, 1] and [0, 1]")
        self.config = {
            "levels": list(levels), "widths": list(widths), "loss": loss, "share": share, "importance": importance,
            "compat": compat,
        }  # fmt: skip
        self.fusion = Fusion(levels, widths)
        self.decoder = BaeDecoder(widths)
        self.set_training_options(self.config)

    def set_training_options(self, config: Mapping[str, Any]) -> None:
        """See `Head.set_training_options`."""
        super().set_training_options(config)
        self.cost, self.share, self.importance = config["loss"], config["share"], config["importance"]
        self.official = config["compat"] == "official"

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> BaeHead:
        """Widths in proportion to the maps as for Stable Diffusion; see `Head.from_backbone`.

        Raises:
            ValueError: another number of channels than three, or an autoencoder of another stride than 8.
        """
        if channels != 3:
            raise ValueError(
                f"a bae head predicts unit vectors of 3 channels, not {channels}; use another head for other targets"
            )
        if backbone.stride != 8:
            raise ValueError(
                f"a bae head needs a latent of stride 8, and this model's has stride {backbone.stride}"
            )
        levels, widths = fusion_sizes(backbone)
        defaults: dict[str, Any] = {"levels": levels, "widths": widths}
        return cls(**{**defaults, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """All maps (``b c h w``, as `Output.features` of ``all``) to unit vectors ``b 3 h*8 w*8``."""
        return self.decoder(self.fusion(by_level(features, backbone)))[-1][:, :3]

    def forward_with_uncertainty(
        self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and the expected angular error of each vector, ``b 1 h*8 w*8``, as a fraction of 180 degrees."""
        finest = self.decoder(self.fusion(by_level(features, backbone)))[-1]
        return finest[:, :3], expected_angle(finest[:, 3:]) / 180

    def loss(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        target: Tensor,
        mask: Tensor,
        rngs: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """The loss of each image at each of the four resolutions; see `Head.loss`.

        Args:
            x0: not read.
            features: all maps.
            backbone: the model that computed them.
            target: unit vectors ``b 3 H W``.
            mask: ``b 1 H W`` bool, where the target is valid.
            rngs: one per image; the sampled pixels are drawn from them.
        """
        maps = self.fusion(by_level(features, backbone))
        if self.share >= 1:
            stages = [(_resized(pred, target.shape[-2:]), target, mask) for pred in self.decoder(maps)]
        else:
            stages = self._sampled(maps, target, mask, rngs)
        return {
            name: mean_cost(self.cost, pred[:, :3], pred[:, 3:], truth, valid, self.official)
            for name, (pred, truth, valid) in zip(STAGES, stages, strict=True)
        }

    def _sampled(
        self, maps: Sequence[Tensor], target: Tensor, mask: Tensor, rngs: Sequence[torch.Generator]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Prediction, target and mask at each resolution: at all pixels of the first, at sampled ones of the others."""
        inner = self.decoder.inner(maps)
        coarse = self.decoder.first(inner[0])
        out = [(_resized(coarse, target.shape[-2:]), target, mask)]
        for stage, level in enumerate(inner):
            size = (2 * coarse.shape[-2], 2 * coarse.shape[-1])
            larger = _resized(coarse, size)
            valid = F.interpolate(mask.float(), size=size, mode="nearest") > 0.5
            kappa = larger[:, 3:].detach()
            pixels = pixel_sampling.sample(kappa, valid, rngs, self.share, self.importance, self.official)
            pred = self.decoder.refined(stage, level, coarse, size, pixels)
            truth = pixel_sampling.at(target, pixels, size, "nearest")
            out.append((pred, truth, pixel_sampling.at(mask.to(target), pixels, size, "nearest") > 0.5))
            # The other pixels keep the coarser prediction, as input of the next network.
            index = pixels[:, None].expand(-1, 4, -1)
            coarse = larger.flatten(2).scatter(2, index, pred[:, :, 0].to(larger)).view_as(larger)
        return out

    def fold(self) -> BaeHead:
        """Store normalised weights, for inference: the same output in less time."""
        for module in self.modules():
            if isinstance(module, SpectralConv | StandardConv):
                module.fold()
        return self


class BaeDecoder(nn.Module):
    """A pyramid of five maps to vectors and concentrations at four resolutions.

    Args:
        channels: of the maps, coarse to fine. The decoder's own maps have the channels of the first, halved at each
            level.
    """

    def __init__(self, channels: Sequence[int] = SD_WIDTHS) -> None:
        super().__init__()
        deep = channels[0]
        widths = [deep // 2**k for k in range(1, 5)]
        self.project = nn.Conv2d(deep, deep, 1)
        self.up = nn.ModuleList(
            _Up(i + s, o) for i, s, o in zip([deep, *widths], channels[1:], widths, strict=False)
        )
        self.predict = nn.Conv2d(widths[1], 4, 3, padding=1)
        self.refine = nn.ModuleList(_pixel_network(w + 4) for w in widths[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Unit vectors and kappa, ``b 4 h w``, at 1, 2, 4 and 8 times the third map's size, all pixels refined."""
        inner = self.inner(maps)
        out = [self.first(inner[0])]
        for stage, level in enumerate(inner):
            size = (2 * out[-1].shape[-2], 2 * out[-1].shape[-1])
            out.append(self.refined(stage, level, out[-1], size))
        return out

    def inner(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The decoder's own maps at 1, 2 and 4 times the third map's size."""
        x, out = self.project(maps[0]), []
        for up, skip in zip(self.up, maps[1:], strict=True):
            x = up(x, skip)
            out.append(x)
        return out[1:]

    def first(self, level: Tensor) -> Tensor:
        """The prediction ``b 4 h w`` from the coarsest of them."""
        return normalised(self.predict(level))

    def refined(
        self, stage: int, level: Tensor, coarse: Tensor, size: tuple[int, int], pixels: Tensor | None = None
    ) -> Tensor:
        """Refine a coarse prediction to ``b 4 h w`` of ``size``, or to ``b 4 1 n`` at pixel indices ``b n`` of it.

        The network's first layer is pixel-wise and linear, so it can run before upsampling: the same result at a
        quarter of the time and memory.
        """
        first, *rest = self.refine[stage]  # ty: ignore[not-iterable]
        hidden = first(torch.cat([level, coarse.to(level)], 1))
        layers = nn.Sequential(*rest)
        if pixels is not None:
            return normalised(layers(pixel_sampling.at(hidden, pixels, size)))
        # Image by image in inference: the largest maps of the network are computed here.
        images = (hidden,) if torch.is_grad_enabled() else hidden.split(1)
        return torch.cat([normalised(layers(_resized(image, size))) for image in images])


def normalised(x: Tensor) -> Tensor:
    """Raw outputs to a unit vector and a kappa above 0.01, ``b 4 ...``, in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    vector, kappa = x[:, :3], x[:, 3:]
    length = vector.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
    return torch.cat([vector / (length + 1e-10), F.elu(kappa) + 1 + MIN_KAPPA], 1)


class StandardConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and deviation 1 (weight standardisation, Qiao et al. 2019)."""

    folded = False

    def standardised(self) -> Tensor:
        """The weights as they are used, in float32 at least."""
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return weight / (weight.flatten(1).std(1) + 1e-10)[:, None, None, None]

    def fold(self) -> None:
        """Store the standardised weights, for inference; see `SpectralConv.fold`."""
        with torch.no_grad():
            self.weight.copy_(self.standardised())
        self.folded = True

    def train(self, mode: bool = True) -> StandardConv:
        """As of any module; in training the weights are standardised at every forward pass."""
        self.folded = self.folded and not mode
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        """``b channels h w`` to ``b out h w``."""
        weight = self.weight if self.folded else self.standardised().to(self.weight.dtype)
        return F.conv2d(input, weight, self.bias, padding=self.padding)


class _Up(nn.Module):
    """Upsampling, concatenation with a finer map, and two convolutions."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            StandardConv(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.LeakyReLU(),
            StandardConv(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.LeakyReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.layers(torch.cat([_resized(x, skip.shape[-2:]), skip], 1))


def _pixel_network(channels: int) -> nn.Sequential:
    sizes = [channels, _HIDDEN, _HIDDEN, _HIDDEN]
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Conv2d(i, o, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(_HIDDEN, 4, 1))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)
