"""Random numbers that depend on an image's seed, not on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Rngs = torch.Generator | Sequence[torch.Generator]


def randn_tensor(shape: Sequence[int], rngs: Rngs, like: Tensor) -> Tensor:
    """Standard normal numbers ``b ...`` in the dtype and on the device of ``like``.

    With one generator per image, an image's numbers do not depend on the others of the batch. They are
    generated on the CPU in float32, so a seed gives the same numbers on every device.

    Raises:
        ValueError: the number of generators is neither one nor that of the images.
    """
    if isinstance(rngs, torch.Generator):
        return torch.randn(tuple(shape), generator=rngs).to(like)
    if len(rngs) != shape[0]:
        raise ValueError(f"{len(rngs)} generators for {shape[0]} images; pass one, or one per image")
    return torch.stack([torch.randn(tuple(shape[1:]), generator=rng) for rng in rngs]).to(like)
