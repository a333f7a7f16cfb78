"""Public data sets as data folders: one file a data set, one line here."""

from __future__ import annotations

from twofold.data.convert.ade20k import ADE20K
from twofold.data.convert.cityscapes import CITYSCAPES
from twofold.data.convert.cityscapes_depth import CITYSCAPES_DEPTH
from twofold.data.convert.coco import COCO_KEYPOINTS
from twofold.data.convert.composition import COMPOSITION1K
from twofold.data.convert.converter import Converter, convert
from twofold.data.convert.diff2in1 import DIFF2IN1, DIFF2IN1_SQUEEZED
from twofold.data.convert.diode import DIODE
from twofold.data.convert.dis5k import DIS5K
from twofold.data.convert.dsine import DSINE_IBIMS, DSINE_NYUV2, DSINE_SCANNET, DSINE_SINTEL, DSINE_VKITTI
from twofold.data.convert.eth3d import ETH3D
from twofold.data.convert.framenet import SCANNET_FRAMENET
from twofold.data.convert.hypersim import HYPERSIM
from twofold.data.convert.ibims import IBIMS1
from twofold.data.convert.kitti_eigen import KITTI_EIGEN
from twofold.data.convert.mattes import AIM500, P3M10K
from twofold.data.convert.nyud_mt import NYUD_MT
from twofold.data.convert.nyuv2 import NYUV2_BAE, NYUV2_MARIGOLD, NYUV2_MARIGOLD_FILLED
from twofold.data.convert.nyuv2_mat import NYUV2_MAT
from twofold.data.convert.pascal_mt import PASCAL_MT
from twofold.data.convert.scannet import SCANNET_MARIGOLD
from twofold.data.convert.taskonomy import TASKONOMY
from twofold.data.convert.vkitti2 import VKITTI2

CONVERTERS: dict[str, Converter] = {
    c.name: c
    for c in (
        HYPERSIM,
        VKITTI2,
        TASKONOMY,
        CITYSCAPES_DEPTH,
        NYUV2_MAT,
        NYUV2_MARIGOLD,
        NYUV2_MARIGOLD_FILLED,
        NYUV2_BAE,
        DIFF2IN1,
        DIFF2IN1_SQUEEZED,
        KITTI_EIGEN,
        SCANNET_MARIGOLD,
        SCANNET_FRAMENET,
        DIODE,
        ETH3D,
        IBIMS1,
        DSINE_NYUV2,
        DSINE_SCANNET,
        DSINE_IBIMS,
        DSINE_SINTEL,
        DSINE_VKITTI,
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
