"""A source brought to the size at which samples are created: picture, labels and masks alike."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..image import longest_edge_size, resize
from ..sample import Sample
from ..targets import target_spec


def fitted(source: Sample, longest: int) -> Sample:
    """The sample with its longest edge at ``longest`` pixels, its shape kept; 0 leaves it as it is.

    What is invalid does not bleed into what is valid; a mask is its nearest pixel's.
    """
    h, w = source.image.shape[-2:]
    size = longest_edge_size(h, w, longest) if longest else (h, w)
    if size == (h, w):
        return source
    targets, valid = {}, {}
    for name, target in source.targets.items():
        targets[name], valid[name] = target_spec(name).resize(target, source.valid[name], size)
    image = resize(source.image, size).clamp(0, 1)
    return replace(source, image=image, targets=targets, valid=valid, camera=None)


def squeezed(source: Sample, edge: int) -> Sample:
    """The sample as the released code of Diff-2-in-1 sees it: squeezed to a square, its shape not kept.

    Pictures and maps are interpolated without a filter, with what is invalid as zeros, and vectors are not made unit
    again; a pixel stays valid where all that went into it was, which takes a pixel off every border.
    """
    targets, valid = {}, {}
    for name, target in source.targets.items():
        known = source.valid[name]
        if target_spec(name).is_interpolable:
            targets[name] = _bilinear(torch.where(known, target, 0.0), edge)
        else:
            targets[name] = interpolate(torch.where(known, target, 0.0)[None], (edge, edge), mode="nearest")[
                0
            ]
        valid[name] = _bilinear(known.float(), edge) >= 1
        targets[name] = torch.where(valid[name], targets[name], 0.0)
    return replace(source, image=_bilinear(source.image, edge), targets=targets, valid=valid, camera=None)


def _bilinear(x: Tensor, edge: int) -> Tensor:
    # In double: halves of ones add up to one exactly, so a mask can be asked for 1.
    return interpolate(x.double()[None], (edge, edge), mode="bilinear", align_corners=False)[0].to(x.dtype)
