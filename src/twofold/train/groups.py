"""Which images of a batch go through the network together, and under which of their tasks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from .examples import MultiTaskExample


@dataclass(frozen=True)
class Group:
    """Images of one forward pass, each under the tasks that share it, and where in their batch they are."""

    places: list[int]
    images: list[MultiTaskExample]


def by_forward_pass(examples: Sequence[MultiTaskExample], pass_of: Callable[[str], Hashable]) -> list[Group]:
    """The images by forward pass: those of one shape under kinds of one ``pass_of``, in the order of their batch.

    An image whose kinds need several passes is in several groups, under some of its kinds in each.
    """
    groups: dict[Hashable, Group] = {}
    for place, example in enumerate(examples):
        parts: dict[Hashable, MultiTaskExample] = {}
        for kind, one in example.items():
            parts.setdefault((pass_of(kind), one.shape), {})[kind] = one
        for key, part in parts.items():
            group = groups.setdefault(key, Group([], []))
            group.places.append(place)
            group.images.append(part)
    return list(groups.values())
