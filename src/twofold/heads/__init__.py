"""What reads the answer out of the network. A head is called as ``head(x0, features, backbone)``."""

from torch import nn

from .dpt import DPTHead
from .latent import LatentHead
from .light import LightHead

HEADS: dict[str, type[nn.Module]] = {"latent": LatentHead, "light": LightHead, "dpt": DPTHead}

__all__ = ["DPTHead", "HEADS", "LatentHead", "LightHead"]
