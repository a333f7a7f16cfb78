"""Resizing of a sample: image, labels and masks alike."""

from __future__ import annotations

from dataclasses import replace

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
