"""The head without parameters: the backbone's own decoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..backbones.backbone import Backbone
from .head import Head


class LatentHead(Head):
    """Decodes the clean latent to an encoded target."""

    kinds = ("latent",)
    reads_features = False

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> LatentHead:
        """See `Head.from_backbone`.

        Raises:
            ValueError: a number of channels other than 1 and 3.
        """
        if channels not in (1, 3):
            raise ValueError(
                f"a latent head outputs images of 3 channels, not {channels}; use a head that reads features"
            )
        return cls()

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """The clean latent ``b z h w`` to an encoded target ``b 3 H W``, nominally in [-1, 1]."""
        return backbone.decode(x0)
