"""Settings of a network beside its weights, protocol and head: conditioning and output conversion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..image.resize import OutputResize

# Text of a settings file (names, prompts); long enough for the names of 512 classes.
Line = Annotated[str, Field(max_length=32768)]


class OutputConfig(BaseModel):
    """The conditioning that a network was trained with, and how its output becomes a map.

    Attributes:
        prompt: text condition; None for the task's prompt.
        pad: whether the prompt is padded to the tokenizer's length (77).
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); 1 disables it.
        space: space of the map's values; empty for the task's.
        frame: frame of the predicted vectors, None for RUB; maps are converted to RUB.
        minmax_normalize: whether each output is min-max normalized to [-1, 1] (E2E-FT, GenPercept's DPT head).
        clip: what is clipped to [-1, 1]: the ``mean`` over the decoded channels (nothing for vectors), or all
            ``channels`` before averaging (Lotus, and the published networks of normals except E2E-FT's); ``lower``
            clips the mean at -1 only, so that a map may exceed 1 (DMP's depth, where 1 is 8 metres).
        output_index: index of the output of a network with several.
        image_features: whether the maps of the image encoder are passed to the network.
        resize: how maps are resized to the input's size, see `image.resized_output`.
        odd_sizes: handling of images whose sides are not multiples of the stride. ``pad``: pad them to the next
            multiple and crop the maps. ``floor``: encode them unpadded, so that the latent is rounded down, and resize
            the map, up to a stride smaller than the image, to the image's size, as in the original codes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    prompt: Line | None = None
    pad: bool = False
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.0
    space: Line = ""
    frame: Literal["RUB", "LUB", "RDF"] | None = None
    minmax_normalize: bool = False
    clip: Literal["mean", "channels", "lower"] = "mean"
    output_index: Annotated[int, Field(ge=0, le=64)] = 0
    image_features: bool = False
    resize: OutputResize = "bilinear"
    odd_sizes: Literal["pad", "floor"] = "pad"


DEFAULT_CONFIG = OutputConfig()


def minmax_normalize(output: Tensor) -> Tensor:
    """Average ``b c h w`` over channels, and scale each image's minimum and maximum to -1 and 1."""
    grey = output.mean(1, keepdim=True)
    low, high = grey.amin((1, 2, 3), keepdim=True), grey.amax((1, 2, 3), keepdim=True)
    return ((grey - low) / (high - low).clamp(min=1e-8) * 2 - 1).expand_as(output)


def decode_unbounded(output: Tensor) -> Tensor:
    """A distance ``b 1 h w`` from ``b c h w``, 0 or more but not clipped at 1; see ``OutputConfig.clip``."""
    return (output.float().mean(1, keepdim=True).clamp(min=-1) + 1) / 2
