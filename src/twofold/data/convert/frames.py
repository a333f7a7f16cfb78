"""Reading of stored normals, and detection of their frame from the data where it is not documented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twofold.data.layout import FolderError
from twofold.geometry import FRAMES
from twofold.image import read_map
from twofold.image.raster_format import raster_format


def read_normals(path: Path) -> tuple[Tensor, int]:
    """Normals ``3 h w`` of an image (full scale is -1 to 1) or an array, and the bits per sample.

    The bits are 8 or 16, or 0 for arrays of floats.

    Raises:
        FolderError: the file does not have 3 channels, or has other bits.
    """
    stored = read_map(path)
    if stored.shape[0] != 3:
        raise FolderError(f"{path} has {stored.shape[0]} channels; normals have 3")
    bits = raster_format(path, np.empty(0, np.float32)).bits
    if bits not in (0, 8, 16):
        raise FolderError(f"{path} has {bits} bits per sample; normals have 8 or 16, or are floats")
    return stored / (2**bits - 1) * 2 - 1 if bits else stored, bits


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two vectors; NaN when one is constant."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1]


def frame_from_agreements(agreements: Sequence[Tensor], least: float, where: str) -> str:
    """The frame whose axes have the signs of three agreements.

    Args:
        agreements: agreement of x, y and z with RUB, in [-1, 1]; NaN counts as 0.
        least: minimal absolute value of each.
        where: the files, for the message.

    Raises:
        FolderError: an agreement is below ``least``, or no frame has these signs.
    """
    values = [float(x.nan_to_num(nan=0.0)) for x in agreements]
    signs = tuple(1 if value > 0 else -1 for value in values)
    frame = next((name for name, axes in FRAMES.items() if axes == signs), None)
    if frame is None or min(map(abs, values)) < least:
        found = ", ".join(f"{axis} {value:+.2f}" for axis, value in zip("xyz", values, strict=True))
        raise FolderError(
            f"{where}: the frame of the normals is not clear (agreement {found}; at most 1); write rows with a "
            "'frame' entry"
        )
    return frame
