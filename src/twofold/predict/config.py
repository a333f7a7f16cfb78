"""What a predictor needs to know of a network beside its weights, protocol and head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..image.resize import OutputResize

# Text of a settings file: names, prompts. The names of 512 classes in brackets are the longest there is.
Line = Annotated[str, Field(max_length=32768)]


class OutputConfig(BaseModel):
    """The conditioning that a network was trained with, and how its output becomes a map.

    Attributes:
        prompt: of the text encoder; the task's own when None.
        pad: whether the prompt is padded to the tokenizer's length (77).
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); 1 is none.
        space: of the map's numbers; the task's own when empty.
        frame: of the vectors that the network predicts, RUB when None; maps are converted to RUB.
        minmax_normalize: whether each output is rescaled to fill [-1, 1] (E2E-FT, GenPercept's DPT head).
        clip: what is clipped to [-1, 1]: the ``mean`` over the decoded channels (of vectors, nothing), or all
            ``channels`` before it (Lotus, and the published networks of normals except E2E-FT's); ``lower`` clips the
            mean at -1 only, so that a map may exceed 1 (DMP's depth, of which 1 is 8 metres).
        output_index: which output of a network with several.
        image_features: whether the network gets the maps of its image encoder.
        resize: how maps are resized to the input's size, see `image.resized_output`.
        odd_sizes: for images whose sides are no multiples of the stride. ``pad``: they are padded to the next one and
            the maps cropped. ``floor``: they are encoded as they are, the latent is rounded down, and the map, up to a
            stride smaller than the image, is resized to it, as in the original programs.
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
