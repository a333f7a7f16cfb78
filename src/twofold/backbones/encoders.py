"""Table of image encoders by their names in checkpoints and recipes."""

from collections.abc import Callable

from torch import Tensor

from .efficientnet import EfficientNetLite0, imagenet_weights
from .image_encoder import ImageEncoder

IMAGE_ENCODERS: dict[str, type[ImageEncoder]] = {EfficientNetLite0.name: EfficientNetLite0}
# Functions that return the pretrained state dict, by the same names.
PRETRAINED: dict[str, Callable[[], dict[str, Tensor]]] = {EfficientNetLite0.name: imagenet_weights}


def pretrained_encoder(name: str) -> ImageEncoder:
    """Make an image encoder with pretrained weights.

    Raises:
        ValueError: there is no image encoder of that name.
        ModuleNotFoundError: the package with the weights is not installed.
    """
    if name not in IMAGE_ENCODERS:
        raise ValueError(f"unknown image encoder {name!r}; known: {', '.join(IMAGE_ENCODERS)}")
    encoder = IMAGE_ENCODERS[name]()
    encoder.load_state_dict(PRETRAINED[name]())
    return encoder.eval()
