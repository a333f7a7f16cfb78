"""Selection of a subset of a folder's samples, the same in training and in data generation."""

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
        total: number of samples in the folder.
        count: number of samples to use; 0 for ``fraction`` of them.
        fraction: fraction of the samples to use, in (0, 1]; at least one sample.
        selection: ``even``: evenly spaced from the first; ``random``: without replacement. For one seed a smaller
            random selection is a subset of a larger one.
        seed: seed of a random selection.
    """
    used = count or max(1, round(Fraction(str(fraction)) * total))
    if used >= total:
        return list(range(total))
    if selection == "even":
        return [i * total // used for i in range(used)]
    rng = torch.Generator().manual_seed(derive_seed(seed, "selection"))
    return sorted(torch.randperm(total, generator=rng)[:used].tolist())
