"""The DPT head of GenPercept: four feature maps fused from coarse to fine, without the autoencoder's decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .head import Head

Activation = Literal["identity", "relu", "elu+1"]


class DPTHead(Head):
    """Features of a U-Net's decoding path to an encoded target (Ranftl et al. 2021, GenPercept's neck and head only).

    Names and shapes of the parameters are those of GenPercept's published files. Where the latent's sides are multiples
    of 4, outputs are equal too; elsewhere the original's output has another size than the image, and this head resizes
    every fused map to the size of the next feature map.

    Args:
        channels: of the feature maps, fine to coarse.
        width: of the fused maps.
        activation: of the output; ``elu+1`` is that of GenPercept's first version. Neither it nor ``relu`` covers the
            range [-1, 0), so such a head is trained with losses that fit scale and shift, and its output is min-max
            normalised.
        unused_first_residual: keep the weights that the coarsest fusion does not use, as the first version did.
        out_channels: of the output; 1 is repeated to three.

    Raises:
        ValueError: an unknown activation, or no feature map or output channel.
    """

    kinds = ("dpt", "dpt-relu", "dpt-elu")
    kind_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "dpt-relu": {"activation": "relu"},
        "dpt-elu": {"activation": "elu+1", "unused_first_residual": True},  # GenPercept's first version
    }

    def __init__(
        self,
        channels: Sequence[int] = (320, 640, 1280, 1280),
        width: int = 256,
        activation: Activation = "identity",
        unused_first_residual: bool = False,
        out_channels: int = 1,
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(
                f"a DPT head has no activation {activation!r}; expected one of {', '.join(get_args(Activation))}"
            )
        if out_channels < 1 or not channels:
            raise ValueError(
                f"a DPT head has {out_channels} output channels and the feature channels {channels}; expected at least "
                "one each"
            )
        self.config = {
            "channels": list(channels),
            "width": width,
            "activation": activation,
            "unused_first_residual": unused_first_residual,
            "out_channels": out_channels,
        }
        self.feature_upsample_0 = _Upsample(channels[0])
        self.neck = _Neck(channels, width, unused_first_residual)
        self.head = _OutputLayers(width, activation, out_channels)
        self.apply(_init_weights)

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> DPTHead:
        """4/5 as wide as the finest feature map, GenPercept's ratio; see `Head.from_backbone`."""
        read = tuple(reversed(backbone.feature_channels))
        defaults: dict[str, Any] = {
            "channels": read,
            "width": max(16, read[0] * 4 // 5 // 8 * 8),
            "out_channels": channels,
        }
        return cls(**{**defaults, **options})

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """Features (``b c h w`` each, coarse to fine) to ``b c h*stride w*stride``; ``x0`` is not read.

        Raises:
            ValueError: another number of features than the head has `channels`.
        """
        maps = list(features[::-1])
        if len(maps) != len(self.neck.convs):
            raise ValueError(f"a DPT head of {len(self.neck.convs)} feature maps got {len(maps)}")
        size = [n * backbone.stride for n in maps[0].shape[-2:]]
        maps[0] = self.feature_upsample_0(maps[0])
        output = self.head(self.neck(maps), size)
        return output.expand(-1, 3, -1, -1) if output.shape[1] == 1 else output


class _Upsample(nn.Module):
    """The finest map to twice its size, as the original's four different scales need."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Neck(nn.Module):
    """Maps (fine to coarse) to one: each projected to one width, then fused, the coarsest first."""

    def __init__(self, channels: Sequence[int], width: int, unused_first_residual: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in channels)
        lateral = [unused_first_residual, *[True] * (len(channels) - 1)]
        self.fusion_stage = nn.ModuleDict({"layers": nn.ModuleList(_Fusion(width, has) for has in lateral)})

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [conv(feature) for conv, feature in zip(self.convs, features, strict=True)][::-1]
        layers = cast(nn.ModuleList, self.fusion_stage["layers"])
        sizes = [list(m.shape[-2:]) for m in maps[1:]] + [[2 * n for n in maps[-1].shape[-2:]]]
        fused = layers[0](maps[0], None, sizes[0])
        for layer, lateral, size in zip(layers[1:], maps[1:], sizes[1:], strict=True):
            fused = layer(fused, lateral, size)
        return fused


class _Fusion(nn.Module):
    """A fused map and the feature map of its size to one map of the next size."""

    def __init__(self, width: int, lateral: bool) -> None:
        super().__init__()
        self.projection = nn.Conv2d(width, width, 1)
        self.residual_layer1 = _Residual(width) if lateral else None
        self.residual_layer2 = _Residual(width)

    def forward(self, x: Tensor, lateral: Tensor | None, size: list[int]) -> Tensor:
        if lateral is not None and self.residual_layer1 is not None:
            x = x + self.residual_layer1(lateral)
        return self.projection(_resized(self.residual_layer2(x), size))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution2(F.relu(self.convolution1(F.relu(x))))


class _OutputLayers(nn.Module):
    """The fused map to the output channels at the image's size."""

    def __init__(self, width: int, activation: Activation, out_channels: int) -> None:
        super().__init__()
        self.activation = activation
        self.projection = nn.Conv2d(width, width, 3, padding=1)
        # By the original's indices in a sequence, whose other modules have no parameters.
        self.head = nn.ModuleDict({
            "0": nn.Conv2d(width, width // 2, 3, padding=1),
            "2": nn.Conv2d(width // 2, 32, 3, padding=1),
            "4": nn.Conv2d(32, out_channels, 1),
        })  # fmt: skip

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        x = self.head["0"](F.relu(self.projection(x)))
        x = self.head["4"](F.relu(self.head["2"](_resized(x, size))))
        match self.activation:
            case "relu":
                return F.relu(x)
            case "elu+1":
                return F.elu(x) + 1
        return x


def _resized(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _init_weights(module: nn.Module) -> None:
    """Weights of standard deviation 0.02 and zero biases, as the original."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
