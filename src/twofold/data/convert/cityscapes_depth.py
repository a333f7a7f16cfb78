"""Cityscapes (Cordts et al. 2016): depth from its stereo disparity. Its classes: see `cityscapes`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, intrinsic_matrix, replace_suffix
from twofold.data.layout import FolderError, Row


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per left image: {type}/{split}/{city}/{city}_{sequence}_{frame}_{type}."""
    tree = Tree(root)
    for name in tree.match(f"leftImg8bit/{split}/*/*_leftImg8bit.png"):
        _, _, city, file = name.split("/")
        stem = replace_suffix(file, "_leftImg8bit.png", "")
        matrix, baseline = _camera(tree, f"camera/{split}/{city}/{stem}_camera.json")
        depth = tree.path(f"disparity/{split}/{city}/{stem}_disparity.png")
        yield {
            "id": f"{split}/{city}/{stem}",
            "file_name": name,
            "scene": city,
            "targets": {"depth": {"path": depth, "baseline": baseline}},
            "camera": {"K": matrix},
        }


def _camera(tree: Tree, name: str) -> tuple[list[list[float]], float]:
    """The intrinsic matrix, and the distance between the two cameras in metres."""
    with tree.open(name) as file:
        try:
            values = json.load(file)
            inside, baseline = values["intrinsic"], float(values["extrinsic"]["baseline"])
            matrix = intrinsic_matrix(*(float(inside[key]) for key in ("fx", "fy", "u0", "v0")))
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(
                f"{tree.root / name} is no camera of Cityscapes ({error}); unpack it again"
            ) from None
    if not 0 < baseline < 10 or not matrix[0][0] > 0:
        raise FolderError(f"{tree.root / name} has a baseline of {baseline} m; unpack it again")
    return matrix, baseline


CITYSCAPES_DEPTH = Converter(
    name="cityscapes-depth",
    title="Cityscapes, depth from stereo (leftImg8bit, disparity, camera)",
    licence="its own terms: non-commercial, no redistribution",
    access="register at cityscapes-dataset.com; leftImg8bit_trainvaltest, disparity_trainvaltest, camera_trainvaltest",
    splits=("train", "val", "test", "train_extra"),
    # Stored p > 0 is a disparity of (p - 1) / 256 pixels; 0 is none.
    targets={
        "depth": {
            "codec": "png16",
            "kind": "disparity",
            "scale": 1 / 256,
            "offset": -1 / 256,
            "invalid": [0],
            "unit": "m",
        }
    },
    rows=rows,
    notes="Depth is baseline * fx / disparity, by each image's own camera file. The car's bonnet and the border "
    "of the rectification are garbage, which nothing in the files marks: crop them. GenPercept's loader divides "
    "by 300, for files of its own; these are the official ones.",
)
