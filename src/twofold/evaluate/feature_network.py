"""Image features of a model, for FID and KID between sets of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Model
from ..image import resize
from .protocol import EvaluationError

# Default edge of the squares that images are resized to; an edge has to be a multiple of MULTIPLE.
PIXELS, MULTIPLE = 256, 64


@dataclass(frozen=True)
class FeatureNetwork:
    """A function that computes a feature vector for each image, and all that the vectors depend on.

    Attributes:
        name: name of the model.
        sha256: digest of the model's weight files.
        layer: description of the features.
        pixels: edge of the squares that images are resized to.
        dimensions: length of a feature vector.
        compute: function from images ``b 3 pixels pixels`` in [0, 1] to vectors ``b dimensions``.
    """

    name: str
    sha256: str
    layer: str
    pixels: int
    dimensions: int
    compute: Callable[[Tensor], Tensor] = field(repr=False)

    def prepare(self, image: Tensor) -> Tensor:
        """Resize an image ``3 h w`` in [0, 1] to the square input of the network, with antialiasing and no crop."""
        return resize(image, (self.pixels, self.pixels)).clamp(0, 1)

    @property
    def metadata(self) -> dict[str, Any]:
        """All fields except ``compute``; two distances are comparable only if these are equal, except for the name."""
        return {k: v for k, v in asdict(self).items() if k != "compute"}


def feature_network(model: Model, pixels: int = PIXELS) -> FeatureNetwork:
    """The feature network of a model, for FID and KID.

    The features are the spatial means of one feature map. For a model with an image encoder this is the encoder's
    coarsest map; for any other it is the coarsest map of the U-Net's up blocks for the latent of the image without
    noise, at time step 0, with the empty prompt.

    Args:
        model: an opened model.
        pixels: edge of the squares that images are resized to.

    Raises:
        EvaluationError: ``pixels`` is invalid, or the U-Net needs more inputs than the latent of an image.
    """
    if pixels < MULTIPLE or pixels % MULTIPLE:
        raise EvaluationError(
            f"the edge of an image cannot be {pixels} pixels; use a multiple of {MULTIPLE}, such as {PIXELS}"
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

    layer = "U-Net, coarsest map of the up blocks, time step 0, spatial mean"
    return FeatureNetwork(model.name, model.digest, layer, pixels, net.feature_channels[0], denoise)
