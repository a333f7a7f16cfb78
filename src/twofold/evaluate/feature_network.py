"""Image features of an opened model, for distances between sets of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Model
from ..image import resize
from .protocol import EvaluationError

# Edge of the squares that images are resized to, and what edges are multiples of.
PIXELS, MULTIPLE = 256, 64


@dataclass(frozen=True)
class FeatureNetwork:
    """A function from images to one row of features each, and all that its numbers depend on.

    Attributes:
        name: of the model.
        sha256: over the model's weight files.
        layer: which features are read.
        pixels: edge of the squares that images are resized to.
        dimensions: numbers of a row.
        compute: images ``b 3 pixels pixels`` in [0, 1] to rows ``b dimensions``.
    """

    name: str
    sha256: str
    layer: str
    pixels: int
    dimensions: int
    compute: Callable[[Tensor], Tensor] = field(repr=False)

    def prepare(self, image: Tensor) -> Tensor:
        """An image ``3 h w`` in [0, 1] as the network takes it: resized to a square, with antialiasing, not cropped."""
        return resize(image, (self.pixels, self.pixels)).clamp(0, 1)

    @property
    def metadata(self) -> dict[str, Any]:
        """Everything but the function; two distances are comparable only where it is equal."""
        return {k: v for k, v in asdict(self).items() if k != "compute"}


def feature_network(model: Model, pixels: int = PIXELS) -> FeatureNetwork:
    """The features of a model that distances between sets of images are measured in.

    Spatial means of one feature map, with no noise: of a model with an image encoder, its coarsest map; of any other,
    the coarsest map of the U-Net's decoding path for the latent of the image, at time step 0, under the empty prompt.

    Raises:
        EvaluationError: no such size, or a model whose U-Net takes more than the latent of an image.
    """
    if pixels < MULTIPLE or pixels % MULTIPLE:
        raise EvaluationError(
            f"images cannot have {pixels} pixels an edge; use a multiple of {MULTIPLE}, such as {PIXELS}"
        )
    net = model.backbone.eval()
    adapter = net.image_adapter
    if adapter is not None:
        encoder = adapter.encoder

        def encode(images: Tensor) -> Tensor:
            return adapter(images.to(net.device, net.dtype))[-1].mean((2, 3))

        layer = f"image encoder {encoder.name}, stride {2 ** len(encoder.channels)}, spatial mean"
        return FeatureNetwork(model.name, model.digest, layer, pixels, encoder.channels[-1], encode)
    if net.input_channels != net.latent_channels or net.unet.config.get("class_embed_type") is not None:
        raise EvaluationError(
            f"model {model.name} has no image encoder, and its U-Net takes more than the latent of an image; use a "
            "text-to-image model, such as 'embedded'"
        )
    text = net.embed([""])

    def denoise(images: Tensor) -> Tensor:
        latent = net.encode(images.to(net.device) * 2 - 1)
        step = torch.zeros(len(images), dtype=torch.long, device=latent.device)
        return net(latent, step, text.expand(len(images), -1, -1), features=True).features[0].mean((2, 3))

    layer = "U-Net, coarsest map of the decoding path, time step 0, spatial mean"
    return FeatureNetwork(model.name, model.digest, layer, pixels, net.feature_channels[0], denoise)
