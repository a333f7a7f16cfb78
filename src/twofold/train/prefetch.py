"""The next step's examples, made while the network learns from this one's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """``make(step)``, made one step ahead in a thread of its own.

    What is made depends on the step alone, so asking in another order costs time and changes nothing. Nothing is made
    ahead of step ``end`` and after.
    """

    def __init__(self, make: Callable[[int], T], end: int) -> None:
        self.make, self.end = make, end
        # One thread, and one only inside its sums: the rest of the processor belongs to the network. torch keeps that
        # number for each thread, so the network's own is not touched.
        self.pool = ThreadPoolExecutor(1, "examples", initializer=torch.set_num_threads, initargs=(1,))
        self.step, self.next = -1, None

    step: int
    next: Future[T] | None

    def __call__(self, step: int) -> T:
        """What ``make(step)`` gives; an error in it is raised here."""
        future = (
            self.next if self.next is not None and self.step == step else self.pool.submit(self.make, step)
        )
        made = future.result()
        self.step = step + 1
        self.next = self.pool.submit(self.make, self.step) if self.step < self.end else None
        return made
