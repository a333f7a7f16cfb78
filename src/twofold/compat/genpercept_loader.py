"""Samples as GenPercept's released loader makes training examples of them; only to train as it did.

Everything is encoded at the size it is stored in, mirrored or not, and resized afterwards, without keeping the aspect
ratio: images and most labels by the nearest pixel, masks and mattes bilinearly. The encodings themselves are in
`genpercept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..image import resize, resize_nearest
from ..sample import Sample
from ..tasks import Task
from .genpercept import zeroed_normals

# Descriptors of the data folders that are read: numbers that a data folder otherwise leaves out.
OVERRIDE: Mapping[str, Any] = {"targets": {"depth": {"keep_invalid": True}, "mask": {"soft": True}}}
# Targets whose labels it resizes bilinearly, with antialiasing.
SMOOTH = ("mask", "matting")


def prepared(sample: Sample) -> Sample:
    """The sample with normals of zero where the depth beside them is invalid; the camera, of another size, is left out.

    Without depth, normals stay as they are.
    """
    targets, valid = dict(sample.targets), dict(sample.valid)
    if "normals" in targets and "depth" in valid:
        found = zeroed_normals(targets["normals"], valid["normals"], valid["depth"])
        targets["normals"], valid["normals"] = found
    return replace(sample, targets=targets, valid=valid, camera=None)


def resized(task: Task, canvas: Tensor, known: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Canvas ``c h w`` and mask ``1 h w`` at ``size`` (height, width)."""
    by = resize if task.target in SMOOTH else resize_nearest
    return by(canvas, size), resize_nearest(known, size) > 0.5
