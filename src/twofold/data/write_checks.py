"""What may be written to a data folder: targets in the units of `sample.UNITS`."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.data.levels import SHARES
from twofold.data.masks import check_share

_UNIT_LENGTH = 0.05


def check_target(name: str, target: Tensor, valid: Tensor) -> None:
    """ValueError when valid values of a target ``c h w`` are not in its unit: nothing is written that reads otherwise.

    Anything may stand where ``valid`` (bool ``1 h w``) is False.
    """
    found = target[valid.expand_as(target)]
    if not found.numel():
        return
    if not bool(found.isfinite().all()):
        raise ValueError(f"{name} is NaN or infinite where it is valid; mark it as not valid")
    low = float(found.min())
    if name == "depth" and not low > 0:
        raise ValueError(
            f"depth is {low:g} where it is valid; a depth is above 0, and what is unknown is not valid"
        )
    if name == "normals":
        length = torch.linalg.vector_norm(target.float(), dim=0, keepdim=True)[valid]
        if bool(((length - 1).abs() > _UNIT_LENGTH).any()):
            ends = f"{float(length.min()):.3g} to {float(length.max()):.3g}"
            raise ValueError(
                f"normals have lengths from {ends}, not 1; pass unit vectors in RUB, not colours"
            )
    if name in SHARES:
        check_share(name, target, valid)
