"""The frame of stored normals, found from the data where no publication documents it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twofold.data.layout import FolderError
from twofold.geometry import FRAMES


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two vectors; NaN when one is constant."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1]


def frame_from_agreements(agreements: Sequence[Tensor], least: float, where: str) -> str:
    """The frame whose axes have the signs of three agreements.

    Args:
        agreements: how well x, y and z agree with RUB, in [-1, 1]; NaN counts as 0.
        least: each must reach this in absolute value.
        where: the files, for the error.

    Raises:
        FolderError: an agreement is below ``least``, or no frame has these signs.
    """
    values = [float(x.nan_to_num(nan=0.0)) for x in agreements]
    signs = tuple(1 if value > 0 else -1 for value in values)
    frame = next((name for name, axes in FRAMES.items() if axes == signs), None)
    if frame is None or min(map(abs, values)) < least:
        found = ", ".join(f"{axis} {value:+.2f}" for axis, value in zip("xyz", values, strict=True))
        raise FolderError(
            f"{where}: the frame of the normals is not clear (agreement {found}; 1 is the most); write the rows with a "
            "'frame' of their own"
        )
    return frame
