"""The order of examples: shares are exact, and every sample is drawn once before any is drawn twice.

The order is a function of the recipe and the number of the example, so resumed runs and parallel processes need no
communication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch

from ..io import derive_seed
from .config import IMAGE
from .recipe import Recipe


def generator(*keys: int | str) -> torch.Generator:
    """A generator seeded by its keys only, so that the randomness of step n does not depend on earlier steps."""
    return torch.Generator().manual_seed(derive_seed(*keys))


def weighted_round_robin(shares: Sequence[float], n: int) -> tuple[int, int]:
    """The index of the share that gets the ``n``-th turn (from 0), and the number of turns that it had before.

    After any number of turns each share has had its fraction of them, to within one turn per preceding share.

    Raises:
        ValueError: no share is above 0.
    """
    exact = [Fraction(str(s)) for s in shares]
    rest = sum(exact, Fraction())
    if not rest:
        raise ValueError("nothing to choose from: every share is 0")
    for k, share in enumerate(exact):
        part = share / rest
        before, after = (int(m * part + Fraction(1, 2)) for m in (n, n + 1))
        if after > before:
            return k, before
        n, rest = n - before, rest - share
    raise AssertionError("the last share above 0 takes every turn that is left")


@dataclass(frozen=True)
class SampleIndex:
    """The sample of one example.

    Attributes:
        number: of the example in the run, from 0.
        kind: name of its task, or ``image``.
        source: index of its source.
        sample: index of its sample in the source's folder.
    """

    number: int
    kind: str
    source: int
    sample: int


@dataclass(frozen=True)
class _Group:
    """Kinds whose images are drawn from one pool.

    Attributes:
        name: of the group: its kind, or `JOINT`.
        kinds: tasks that its images are trained for.
        frequency: of the group, relative to the other groups'.
        pools: by source, the indices of its samples.
        shares: by source, of the examples.
    """

    name: str
    kinds: tuple[str, ...]
    frequency: float
    pools: Sequence[Sequence[int]]
    shares: Sequence[float]


# Name of the group of all tasks that are drawn together.
JOINT = "tasks"


class DeterministicSampler:
    """The examples of a run by number.

    If an image is trained for all its tasks (`Recipe.joint_tasks`) and their frequencies are equal, the tasks are one
    group: every image that has a target of any of them is drawn once before any is drawn twice, with the tasks'
    frequency relative to that of the image task. With unequal frequencies an image is drawn for one of the tasks, in
    these proportions.

    Args:
        recipe: with shares, task weights and seed.
        pools: by kind and source, the indices of usable samples.

    Raises:
        ValueError: no source with a share has a target of a task; or the tasks' weights differ although every image has
            the targets of all of them, so that the weights would have no effect.
    """

    def __init__(self, recipe: Recipe, pools: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.recipe, self.pools = recipe, pools
        self.kinds = [k for k, share in recipe.data.task_weights.items() if share]
        self.members = {k: [set(pool) for pool in pools[k]] for k in self.kinds}
        for kind in self.kinds:
            if not any(self._shares(pools[kind])):
                raise ValueError(f"no source with a share above 0 has a target of {kind}")
        self.groups = self._grouped()
        self.permuted = lru_cache(maxsize=256)(self._permuted)

    def __call__(self, number: int) -> SampleIndex:
        """The sample of example ``number``; of a group's kinds, ``kind`` is the first that the sample has."""
        turn, place = divmod(number, self.recipe.data.block_size)
        k, turn = weighted_round_robin([group.frequency for group in self.groups], turn)
        group = self.groups[k]
        source, turn = weighted_round_robin(group.shares, turn)
        pool = group.pools[source]
        round_, at = divmod(turn * self.recipe.data.block_size + place, len(pool))
        sample = pool[self.permuted(k, source, round_)[at]]
        kind = next(kind for kind in group.kinds if sample in self.members[kind][source])
        return SampleIndex(number, kind, source, sample)

    def all_of(self, pick: SampleIndex) -> list[SampleIndex]:
        """The sample of ``pick`` for each task that it has a target of; for the image task, ``pick`` alone."""
        if pick.kind == IMAGE:
            return [pick]
        tasks = (k for k in self.kinds if k != IMAGE)
        return [replace(pick, kind=k) for k in tasks if pick.sample in self.members[k][pick.source]]

    def _shares(self, pools: Sequence[Sequence[int]]) -> list[float]:
        return [s.share if pool else 0 for s, pool in zip(self.recipe.data.sources, pools, strict=True)]

    def _grouped(self) -> list[_Group]:
        weights, tasks = self.recipe.data.task_weights, [k for k in self.kinds if k != IMAGE]
        joint = self.recipe.joint_tasks and len(tasks) > 1
        if joint and len({weights[k] for k in tasks}) > 1:
            if all(self.members[k] == self.members[tasks[0]] for k in tasks):
                raise ValueError(
                    f"task_weights has {', '.join(f'{k} {weights[k]:g}' for k in tasks)}, and every image is trained "
                    "for all of these tasks: give them one weight, and set weights of their losses instead (loss)"
                )
            joint = False
        if not joint:
            return [
                _Group(k, (k,), weights[k], self.pools[k], self._shares(self.pools[k])) for k in self.kinds
            ]
        union = [
            sorted(set().union(*(self.members[k][i] for k in tasks)))
            for i in range(len(self.recipe.data.sources))
        ]
        together = _Group(JOINT, tuple(tasks), weights[tasks[0]], union, self._shares(union))
        images = [
            _Group(k, (k,), weights[k], self.pools[k], self._shares(self.pools[k]))
            for k in self.kinds
            if k == IMAGE
        ]
        return [*images, together]

    def _permuted(self, group: int, source: int, round_: int) -> list[int]:
        chosen = self.groups[group]
        rng = generator(self.recipe.loop.seed, "order", chosen.name, source, round_)
        return torch.randperm(len(chosen.pools[source]), generator=rng).tolist()
