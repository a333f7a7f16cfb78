"""Converters of public data sets to data folders, one file each, registered here."""

from __future__ import annotations

from importlib import import_module

from twofold.data.convert.converter import Converter as Converter, convert as convert
from twofold.named_code import find_object, names_code
from twofold.suggest import did_you_mean

# Modules of this package; every Converter that one defines is registered.
_MODULES = (
    "hypersim",
    "vkitti2",
    "taskonomy",
    "cityscapes_depth",
    "nyuv2_mat",
    "nyuv2",
    "diff2in1",
    "kitti_eigen",
    "scannet",
    "framenet",
    "diode",
    "eth3d",
    "ibims",
    "dsine",
    "cityscapes",
    "ade20k",
    "dis5k",
    "mattes",
    "composition",
    "coco",
    "nyud_mt",
    "pascal_mt",
)

CONVERTERS: dict[str, Converter] = {
    found.name: found
    for module in _MODULES
    for found in vars(import_module(f"{__name__}.{module}")).values()
    if isinstance(found, Converter)
}


def get_converter(name: str) -> Converter:
    """The converter of a name, or a user-defined one as ``package.module:NAME``, whose module is imported.

    Raises:
        ValueError: no such converter.
    """
    if names_code(name):
        return find_object(name, "converter", Converter)
    if name not in CONVERTERS:
        raise ValueError(f"no data set {name!r}{did_you_mean(name, CONVERTERS)}")
    return CONVERTERS[name]
