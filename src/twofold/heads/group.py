"""Heads of several tasks on one forward pass of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..backbones.backbone import Backbone
from .head import Head


class HeadGroup(nn.Module):
    """Heads by task as one module that reads one set of features; the output of shared modules is computed once.

    Heads with the same shared modules (`Head.has_shared_output`) get the output of one run. So, in training, the
    statistics of batch normalisation are updated once and not once per task.

    Args:
        heads: by task.
    """

    def __init__(self, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.tasks = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        indices: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """The output of each head, ``b c H W`` by task.

        Args:
            x0: the predicted clean latent, ``b z h w``.
            features: of the same forward pass, as `Output.features`.
            backbone: the model that computed them.
            indices: by task, the images of the batch that its head runs on; all for a task that is not in it.
        """
        shared: dict[tuple[int, ...], Any] = {}
        outputs: dict[str, Tensor] = {}
        heads: list[Any] = list(self.heads)
        for task, head in zip(self.tasks, heads, strict=True):
            chosen = None if indices is None else indices.get(task)
            latent, maps = at(x0, chosen), tuple(at(f, chosen) for f in features)
            if not head.has_shared_output:
                outputs[task] = head(latent, maps, backbone)
                continue
            if head.shared_ids not in shared:
                shared[head.shared_ids] = head.shared_output(features, backbone)
            outputs[task] = head(latent, maps, backbone, [at(x, chosen) for x in shared[head.shared_ids]])
        return outputs


def at(x: Tensor, indices: Sequence[int] | None) -> Tensor:
    """Rows ``indices`` of ``x``; ``x`` itself where these are all its rows in order."""
    if indices is None or (len(indices) == len(x) and list(indices) == list(range(len(x)))):
        return x
    return x[list(indices)]
