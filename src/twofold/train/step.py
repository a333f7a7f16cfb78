"""Losses of a training step, summed for the gradient and by name for the log, and grouping into forward passes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .examples import MultiTaskExample

# Loss terms by name: weight, and values ``b`` of the examples.
Terms = dict[str, tuple[float, Tensor]]


class Loss:
    """The loss of a part of a batch.

    Args:
        device: of the losses.
        batch: number of examples in the whole batch, over which the loss is the mean.
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
        """Add the loss terms of examples of one kind.

        Args:
            kind: name of their task, or ``image``.
            names: of the samples.
            terms: of the loss, with a value for each example.
            fresh: number of these images that no earlier call has counted, if images have several tasks; None is all.

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
            raise FloatingPointError(
                f"the {kind} loss of {', '.join(bad)} is not finite ({_terms_text(found)})"
            )
        self.total = self.total + total.sum() / self.batch
        self._add_sum("loss", sum(each), len(each) if fresh is None else fresh)
        self._add_sum(kind, sum(each), len(each))
        if len(terms) > 1:
            for term, (_, value) in terms.items():
                self._add_sum(f"{kind}/{term}", float(value.detach().sum()), len(each))

    def _add_sum(self, name: str, value: float, count: int) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.sums[f"{name}#"] = self.sums.get(f"{name}#", 0.0) + count


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Means for the log from ``Loss.sums``: of each term over the examples that have it."""
    return {k: v / sums[f"{k}#"] for k, v in sums.items() if not k.endswith("#")}


def _terms_text(found: Mapping[str, list[float]]) -> str:
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
