"""Preprocessing of training samples as in GenPercept's released data loader.

Labels are encoded (and flipped) at their stored size and resized afterwards, ignoring the aspect ratio: images and most
labels to the nearest pixel, masks and mattes bilinearly. The encodings are in `genpercept`.
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

# Changes to the descriptors of data folders, so that values are kept that are dropped by default.
OVERRIDE: Mapping[str, Any] = {"targets": {"depth": {"keep_invalid": True}, "mask": {"soft": True}}}
# Targets that are resized bilinearly, with antialiasing.
SMOOTH = ("mask", "matting")


def prepared(sample: Sample) -> Sample:
    """Set normals to zero at pixels of invalid depth, and remove the camera, which resizing makes invalid."""
    targets, valid = dict(sample.targets), dict(sample.valid)
    if "normals" in targets and "depth" in valid:
        targets["normals"], valid["normals"] = zeroed_normals(
            targets["normals"], valid["normals"], valid["depth"]
        )
    return replace(sample, targets=targets, valid=valid, camera=None)


def resized(task: Task, encoded: Tensor, known: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize an encoded target ``c h w`` and its mask ``1 h w`` to ``size`` (height, width)."""
    resize_target = resize if task.target in SMOOTH else resize_nearest
    return resize_target(encoded, size), resize_nearest(known, size) > 0.5
