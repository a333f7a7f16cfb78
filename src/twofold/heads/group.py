"""Heads of several tasks on one forward pass of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..backbones.backbone import Backbone


class HeadGroup(nn.Module):
    """Heads by task, as one module that reads one set of features; a part that heads share is run once.

    A head with ``shared_output`` (`MultiTaskHead.shared_output`) says what its shared part makes of the features. Heads
    with the same part get it from one run: in training, statistics of batch normalisation are taken once, and not once
    a task.

    Args:
        heads: by task.
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        places: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """What each head paints, ``b c H W`` by task.

        Args:
            x0: the latent that was predicted, ``b z h w``.
            features: of the same forward pass, as `Output.features`.
            backbone: that gave them.
            places: by task, which images of the batch it is wanted of; all where a task is not named.
        """
        shared: dict[tuple[int, ...], Any] = {}
        painted: dict[str, Tensor] = {}
        heads: list[Any] = list(self.heads)
        for task, head in zip(self.tasks, heads, strict=True):
            chosen = None if places is None else places.get(task)
            latent, maps = at(x0, chosen), tuple(at(f, chosen) for f in features)
            if not hasattr(head, "shared_output"):
                painted[task] = head(latent, maps, backbone)
                continue
            key = tuple(id(head.get_submodule(part)) for part in getattr(head, "shares", ()))
            if key not in shared:
                shared[key] = head.shared_output(features, backbone)
            painted[task] = head(latent, maps, backbone, [at(x, chosen) for x in shared[key]])
        return painted


def at(x: Tensor, places: Sequence[int] | None) -> Tensor:
    """Rows ``places`` of ``x``; ``x`` itself where these are all of them."""
    if places is None or (len(places) == len(x) and list(places) == list(range(len(x)))):
        return x
    return x[list(places)]
