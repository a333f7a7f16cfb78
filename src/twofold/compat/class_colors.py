"""A task with class ids encoded as colours, as in GenPercept: ``twofold.compat.class_colors:hypersim_colors``."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..data.labels import hypersim
from ..tasks import Task
from ..tasks.semantic import encode_ids
from .genpercept import encode_minmax

# 8-bit colours of NYU's 40 classes in ScanNet (Dai et al. 2017) and Hypersim.
NYU40_COLOURS = (
    (174, 199, 232), (152, 223, 138), (31, 119, 180), (255, 187, 120), (188, 189, 34), (140, 86, 75),
    (255, 152, 150), (214, 39, 40), (197, 176, 213), (148, 103, 189), (196, 156, 148), (23, 190, 207),
    (178, 76, 76), (247, 182, 210), (66, 188, 102), (219, 219, 141), (140, 57, 197), (202, 185, 52),
    (51, 176, 203), (200, 54, 131), (92, 193, 61), (78, 71, 183), (172, 114, 82), (255, 127, 14),
    (91, 163, 138), (153, 98, 156), (140, 153, 101), (158, 218, 229), (100, 125, 154), (178, 127, 135),
    (120, 185, 128), (146, 111, 194), (44, 160, 44), (112, 128, 144), (96, 207, 209), (227, 119, 194),
    (213, 92, 176), (94, 106, 211), (82, 84, 163), (100, 85, 144),
)  # fmt: skip


def encode_colors(ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Encode ids of NYU's classes as in GenPercept's training: Hypersim's colours, min-max normalized per image.

    Args:
        ids: ``b 1 h w``, integers from 0 to 39.
        valid: ``b 1 h w`` bool.

    Returns:
        Encoded target ``b 3 h w`` in [-1, 1], and a mask ``b 1 h w`` that is True everywhere. Unlabelled pixels are
        black and take part in the loss.

    Raises:
        ValueError: an id is not a class.
    """
    known, mask = encode_ids(ids, valid, len(NYU40_COLOURS))
    colours = _colours(ids)[known.squeeze(1).long()].movedim(-1, 1)
    return encode_minmax(torch.where(mask, colours, 0.0), valid)


def decode_colors(encoded: Tensor) -> Tensor:
    """Decode an encoded target ``b 3 h w`` to the ids ``b 1 h w`` float32 of the nearest colours.

    The per-image normalization cannot be inverted: ids are correct for images that use the full range.
    """
    colours = _colours(encoded)
    pixels = ((encoded.float().clamp(-1, 1) + 1) / 2).movedim(1, -1)
    nearest = torch.cdist(pixels.flatten(1, 2), colours.expand(len(pixels), -1, -1)).argmin(-1)
    return nearest.reshape(len(pixels), 1, *encoded.shape[-2:]).float()


def _colours(like: Tensor) -> Tensor:
    return torch.tensor(NYU40_COLOURS, device=like.device) / 255


hypersim_colors: Task = replace(
    hypersim,
    encode=encode_colors,
    decode=decode_colors,
    losses={name: hypersim.losses[name] for name in ("mse", "l1")},
)
