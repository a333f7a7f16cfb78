"""Shards: parts of a sequence for parallel processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a sequence: every ``count``-th item from ``index`` on, both counted from 0.

    As text it is counted from 1: the first of four is ``1/4``.

    Raises:
        ValueError: ``index`` is not in 0 to ``count`` - 1.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no shard {self.index + 1} of {self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``I/N`` with I from 1 to N; ValueError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"the shard {text!r} is not I/N with I from 1 to N, for example 1/4")
        return cls(int(index) - 1, int(count))

    def select(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this shard."""
        return items[self.index :: self.count]

    def size(self, total: int) -> int:
        """Number of items of this shard out of ``total``."""
        return len(range(self.index, total, self.count))

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"
