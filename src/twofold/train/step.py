"""A step's forward passes, and its losses: summed for the gradient, kept apart for the log and by example."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .examples import MultiTaskExample

# By name: the weight of a term, and its value for each of several examples, ``b``.
Terms = dict[str, tuple[float, Tensor]]


class Loss:
    """The part of a batch's loss that some of its examples have.

    Args:
        device: of the losses.
        batch: examples of the whole batch, over which a loss is the mean.
    """

    def __init__(self, device: torch.device | str, batch: int) -> None:
        self.total = torch.zeros((), device=device)
        self.batch = batch
        self.sums: dict[str, float] = {}
        self.names: list[str] = []

    def add(
        self,
        kind: str,
        names: Sequence[str],
        terms: Mapping[str, tuple[float, Tensor]],
        fresh: int | None = None,
    ) -> None:
        """Add the terms of examples of one kind, called ``names``.

        Args:
            kind: what they teach.
            names: of the samples.
            terms: of the loss, a value for each example.
            fresh: how many of the examples were not counted yet, where one is added for each task that it teaches.

        Raises:
            FloatingPointError: a loss is not finite; the message names the samples.
        """
        self.names += names
        total = sum((weight * value for weight, value in terms.values()), self.total.new_zeros(len(names)))
        each = total.detach().tolist()
        bad = [
            name for name, value in zip(names, each, strict=True) if not -float("inf") < value < float("inf")
        ]
        if bad:
            found = {k: v.detach().tolist() for k, (_, v) in terms.items()}
            raise FloatingPointError(f"the {kind} loss of {', '.join(bad)} is not finite ({_told(found)})")
        self.total = self.total + total.sum() / self.batch
        self._note("loss", sum(each), len(each) if fresh is None else fresh)
        self._note(kind, sum(each), len(each))
        if len(terms) > 1:
            for term, (_, value) in terms.items():
                self._note(f"{kind}/{term}", float(value.detach().sum()), len(each))

    def _note(self, name: str, value: float, count: int) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums[f"{name}#"] = self.sums.get(f"{name}#", 0.0) + count


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """What to log of added ``Loss.sums``: each term's mean over the examples that have it."""
    return {k: v / sums[f"{k}#"] for k, v in sums.items() if not k.endswith("#")}


def _told(found: Mapping[str, list[float]]) -> str:
    return "; ".join(f"{k}: {', '.join(f'{x:.3g}' for x in v)}" for k, v in found.items())


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
            by_pass.setdefault((pass_key(kind), example.image.shape), {})[kind] = example
        for key, part in by_pass.items():
            group = groups.setdefault(key, Group([], []))
            group.indices.append(index)
            group.images.append(part)
    return list(groups.values())
