"""The head without parameters: the backbone's own decoder paints the answer."""

from __future__ import annotations

from torch import Tensor, nn

from ..backbones.backbone import Backbone


class LatentHead(nn.Module):
    """Decode the clean latent to a canvas."""

    reads_features = False

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int) -> LatentHead:
        """The only one there is; see `heads.make_head`.

        Raises:
            ValueError: more channels than a decoder paints.
        """
        if channels not in (1, 3):
            raise ValueError(
                f"a decoder paints pictures of 3 channels, not {channels}; use a head on features"
            )
        return cls()

    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """The clean latent ``b z h w`` to a canvas ``b 3 H W``, nominally in [-1, 1]."""
        return backbone.decode(x0)
