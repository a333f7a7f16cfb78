"""Which example comes when: shares are kept exactly, and every sample is seen once before any is seen twice.

All of it is a function of the recipe and the number of the example, so a resumed run, or one of several processes,
needs to be told nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch

from .recipe import Recipe


def generator(*keys: int | str) -> torch.Generator:
    """A generator seeded by its keys alone: the randomness of step n does not depend on how one got there."""
    return torch.Generator().manual_seed(seed_of(*keys))


def seed_of(*keys: int | str) -> int:
    """A seed of 63 bits from keys."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def apportion(shares: Sequence[float], n: int) -> tuple[int, int]:
    """Which of several the ``n``-th turn is (from 0), and how many turns that one had before.

    After any number of turns each has had its share of them, to within one turn for each share that comes before it.

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
class Pick:
    """One example to be made.

    Attributes:
        number: of the example in the run, from 0.
        kind: what it teaches.
        source: index of its source.
        sample: index of its sample in what the source has.
    """

    number: int
    kind: str
    source: int
    sample: int


class Order:
    """The examples of a run by number.

    Args:
        recipe: whose shares, mix and seed count.
        pools: by kind and source, the samples that can teach it.

    Raises:
        ValueError: no source with a share can teach a kind of the mix.
    """

    def __init__(self, recipe: Recipe, pools: Mapping[str, Sequence[Sequence[int]]]) -> None:
        self.recipe, self.pools = recipe, pools
        self.kinds = [k for k, share in recipe.mix.items() if share]
        self.shares = {
            k: [s.share if pool else 0 for s, pool in zip(recipe.sources, pools[k], strict=True)]
            for k in self.kinds
        }
        for kind in self.kinds:
            if not any(self.shares[kind]):
                raise ValueError(f"no source teaches {kind}: none that has a share has its target")
        self.members = {k: [set(pool) for pool in pools[k]] for k in self.kinds}
        self.permuted = lru_cache(maxsize=256)(self._permuted)

    def __call__(self, number: int) -> Pick:
        """The example of that number."""
        turn, place = divmod(number, self.recipe.together)
        k, turn = apportion([self.recipe.mix[kind] for kind in self.kinds], turn)
        kind = self.kinds[k]
        source, turn = apportion(self.shares[kind], turn)
        pool = self.pools[kind][source]
        round_, at = divmod(turn * self.recipe.together + place, len(pool))
        return Pick(number, kind, source, pool[self.permuted(kind, source, round_)[at]])

    def all_of(self, pick: Pick) -> list[Pick]:
        """The sample of a pick, once for each kind that it can teach."""
        return [replace(pick, kind=k) for k in self.kinds if pick.sample in self.members[k][pick.source]]

    def _permuted(self, kind: str, source: int, round_: int) -> list[int]:
        rng = generator(self.recipe.seed, "order", kind, source, round_)
        return torch.randperm(len(self.pools[kind][source]), generator=rng).tolist()
