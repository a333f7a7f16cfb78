"""Grouping of a batch's images by forward pass of the network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from .examples import MultiTaskExample


@dataclass(frozen=True)
class Group:
    """Images of one forward pass, each with its tasks in that pass, and their indices in the batch."""

    indices: list[int]
    images: list[MultiTaskExample]


def group_by_forward_pass(
    examples: Sequence[MultiTaskExample], pass_key: Callable[[str], Hashable]
) -> list[Group]:
    """Group a batch's images by shape and by ``pass_key(kind)``, in the order of the batch.

    An image whose kinds have several keys is in several groups, with some of its kinds in each.
    """
    groups: dict[Hashable, Group] = {}
    for index, image in enumerate(examples):
        by_pass: dict[Hashable, MultiTaskExample] = {}
        for kind, example in image.items():
            by_pass.setdefault((pass_key(kind), example.shape), {})[kind] = example
        for key, part in by_pass.items():
            group = groups.setdefault(key, Group([], []))
            group.indices.append(index)
            group.images.append(part)
    return list(groups.values())
