"""What reads the answer out of the network. A head is called as ``head(x0, features, backbone)``."""

from typing import Any

from torch import nn

from ..backbones.backbone import Backbone
from .dpt import DPTHead
from .keypoint import KeypointHead
from .latent import LatentHead
from .light import LightHead
from .upernet import UperNetHead

HEADS: dict[str, type[nn.Module]] = {
    "latent": LatentHead,
    "light": LightHead,
    "dpt": DPTHead,
    "upernet": UperNetHead,
    "keypoint": KeypointHead,
}


def make_head(kind: str, backbone: Backbone, channels: int) -> Any:
    """A fresh head for ``backbone`` and ``channels``, of the map or its class logits; random through torch's generator.

    Raises:
        ValueError: no head of that name.
    """
    if kind not in HEADS:
        raise ValueError(f"unknown head {kind!r}; known: {', '.join(HEADS)}")
    made: Any = HEADS[kind]
    return made.made_for(backbone, channels)


__all__ = ["HEADS", "DPTHead", "KeypointHead", "LatentHead", "LightHead", "UperNetHead", "make_head"]
