"""Which samples of a folder are used where not all are: the same ones in training and in creation."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import torch

from twofold.io import derive_seed

Selection = Literal["even", "random"]


def select_indices(
    total: int, count: int = 0, fraction: float = 1.0, selection: Selection = "even", seed: int = 0
) -> list[int]:
    """Indices of the samples that are used, in ascending order.

    Args:
        total: samples that there are.
        count: how many are used; 0 is all, or ``fraction`` of them.
        fraction: of the samples, in (0, 1]; rounded to a number of samples, at least one.
        selection: ``even``: at equal distances from the first; ``random``: without replacement by ``seed``, so that a
            smaller number of one seed is a part of a larger one.
        seed: of a random selection.
    """
    used = count or max(1, round(Fraction(str(fraction)) * total))
    if used >= total:
        return list(range(total))
    if selection == "even":
        return [i * total // used for i in range(used)]
    rng = torch.Generator().manual_seed(derive_seed(seed, "selection"))
    return sorted(torch.randperm(total, generator=rng)[:used].tolist())
