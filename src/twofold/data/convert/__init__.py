"""Public data sets as data folders: one file a data set, one line here."""

from __future__ import annotations

from twofold.data.convert.ade20k import ADE20K
from twofold.data.convert.cityscapes import CITYSCAPES
from twofold.data.convert.coco import COCO_KEYPOINTS
from twofold.data.convert.composition import COMPOSITION1K
from twofold.data.convert.converter import Converter, convert
from twofold.data.convert.dis5k import DIS5K
from twofold.data.convert.mattes import AIM500, P3M10K
from twofold.data.convert.nyud_mt import NYUD_MT
from twofold.data.convert.pascal_mt import PASCAL_MT

CONVERTERS: dict[str, Converter] = {
    c.name: c
    for c in (
        CITYSCAPES,
        ADE20K,
        DIS5K,
        P3M10K,
        AIM500,
        COMPOSITION1K,
        COCO_KEYPOINTS,
        NYUD_MT,
        PASCAL_MT,
    )
}

__all__ = ["CONVERTERS", "Converter", "convert"]
