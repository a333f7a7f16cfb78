"""The DPT head as GenPercept has it: four feature taps fused from coarse to fine, and painted without the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone

Ending = Literal["identity", "relu", "elu+1"]


class DPTHead(nn.Module):
    """Features of a U-Net's decoding path to a canvas (Ranftl et al. 2021, reduced by GenPercept to its neck and head).

    Names and shapes of the parameters are those of GenPercept's published files. Where the latent's sides are
    multiples of 4 so are the numbers; elsewhere the original's output has another size than the image, and this one
    brings every fused map to the size of the tap it meets next.

    Args:
        channels: of the feature taps, fine to coarse.
        width: of the fused maps.
        ending: what is done to the last numbers; ``elu+1`` is that of GenPercept's first version. Neither it nor
            ``relu`` reaches the darker half of a canvas, so such a head is taught by losses that fit scale and shift,
            and read with its answer stretched (`predictor.Reading`).
        unused_first_residual: keep the weights that the coarsest fusion has no use for, as the first version did.
        out: channels painted; 1 is repeated to three.

    Raises:
        ValueError: an ending, a number of channels or of taps that there is not.
    """

    reads_features = True

    def __init__(
        self,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        width: int = 256,
        ending: Ending = "identity",
        unused_first_residual: bool = False,
        out: int = 1,
    ) -> None:
        super().__init__()
        if ending not in get_args(Ending):
            raise ValueError(f"unknown ending {ending!r} of a DPT head; one of {', '.join(get_args(Ending))}")
        if out < 1 or not channels:
            raise ValueError(
                f"a DPT head paints at least 1 channel from at least 1 tap, not {out} from {channels}"
            )
        self.config = {
            "channels": list(channels),
            "width": width,
            "ending": ending,
            "unused_first_residual": unused_first_residual,
            "out": out,
        }
        self.feature_upsample_0 = _Upsample(channels[0])
        self.neck = _Neck(channels, width, unused_first_residual)
        self.head = _Painter(width, ending, out)
        self.apply(_begin)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> DPTHead:
        """A fresh one as wide as 4/5 of the finest tap, GenPercept's proportion; see `heads.make_head`."""
        taps = tuple(reversed(backbone.feature_channels))
        fitting: dict[str, Any] = {
            "channels": taps,
            "width": max(16, taps[0] * 4 // 5 // 8 * 8),
            "out": channels,
        }
        return cls(**{**fitting, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w`` each, coarse to fine) to a canvas ``b c h*stride w*stride``; the latent is not read.

        Raises:
            ValueError: there are more or fewer features than the head was made for.
        """
        taps = list(features[::-1])
        if len(taps) != len(self.neck.convs):
            raise ValueError(f"a DPT head of {len(self.neck.convs)} taps was given {len(taps)} features")
        size = [n * backbone.stride for n in taps[0].shape[-2:]]
        taps[0] = self.feature_upsample_0(taps[0])
        painted = self.head(self.neck(taps), size)
        return painted.expand(-1, 3, -1, -1) if painted.shape[1] == 1 else painted


class _Upsample(nn.Module):
    """The finest tap to twice its size, which the original's four different scales start from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Neck(nn.Module):
    """FeatureSet (fine to coarse) to one map: each brought to one width, then fused, the coarsest first."""

    def __init__(self, channels: Sequence[int], width: int, unused_first_residual: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in channels)
        lateral = [unused_first_residual, *[True] * (len(channels) - 1)]
        self.fusion_stage = nn.ModuleDict({"layers": nn.ModuleList(_Fusion(width, has) for has in lateral)})

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        maps = [conv(tap) for conv, tap in zip(self.convs, taps, strict=True)][::-1]
        layers = cast(nn.ModuleList, self.fusion_stage["layers"])
        sizes = [list(m.shape[-2:]) for m in maps[1:]] + [[2 * n for n in maps[-1].shape[-2:]]]
        fused = layers[0](maps[0], None, sizes[0])
        for layer, lateral, size in zip(layers[1:], maps[1:], sizes[1:], strict=True):
            fused = layer(fused, lateral, size)
        return fused


class _Fusion(nn.Module):
    """A coarser map and the tap of its size to one map of the next size."""

    def __init__(self, width: int, lateral: bool) -> None:
        super().__init__()
        self.projection = nn.Conv2d(width, width, 1)
        self.residual_layer1 = _Residual(width) if lateral else None
        self.residual_layer2 = _Residual(width)

    def forward(self, x: Tensor, lateral: Tensor | None, size: list[int]) -> Tensor:
        if lateral is not None and self.residual_layer1 is not None:
            x = x + self.residual_layer1(lateral)
        return self.projection(_stretched(self.residual_layer2(x), size))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution2(F.relu(self.convolution1(F.relu(x))))


class _Painter(nn.Module):
    """The fused map to ``out`` channels at the image's size."""

    def __init__(self, width: int, ending: Ending, out: int) -> None:
        super().__init__()
        self.ending = ending
        self.projection = nn.Conv2d(width, width, 3, padding=1)
        # By the original's places in a sequence, of which the others have no parameters.
        self.head = nn.ModuleDict({
            "0": nn.Conv2d(width, width // 2, 3, padding=1),
            "2": nn.Conv2d(width // 2, 32, 3, padding=1),
            "4": nn.Conv2d(32, out, 1),
        })  # fmt: skip

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        x = self.head["0"](F.relu(self.projection(x)))
        x = self.head["4"](F.relu(self.head["2"](_stretched(x, size))))
        match self.ending:
            case "relu":
                return F.relu(x)
            case "elu+1":
                return F.elu(x) + 1
        return x


def _stretched(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _begin(module: nn.Module) -> None:
    """Weights of standard deviation 0.02 and no biases, as the original begins."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
