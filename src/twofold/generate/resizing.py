"""Resizing of a sample: image, labels and masks alike."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..image import longest_edge_size, resize
from ..sample import Sample
from ..targets import target_spec


def resize_sample(source: Sample, longest: int) -> Sample:
    """The sample with its longest edge at ``longest`` pixels, its aspect ratio kept; 0 leaves it as it is.

    Invalid pixels do not mix into valid ones; a mask is resized to the nearest pixel.
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


def resize_to_square(source: Sample, edge: int) -> Sample:
    """The sample resized as in the released code of Diff-2-in-1: to a square, its aspect ratio not kept.

    Images and maps are interpolated without antialiasing, with invalid pixels as zeros, and vectors are not normalized
    again. A pixel is valid where all pixels of its interpolation are, which takes a pixel off every border.
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
    # In float64: halves of ones add up to exactly 1, so that a mask can be compared with 1.
    return interpolate(x.double()[None], (edge, edge), mode="bilinear", align_corners=False)[0].to(x.dtype)
