"""ScanNet (Dai et al. 2017): depth in the layout that Marigold evaluates. Its normals: see `dsine`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list, replace_suffix
from twofold.data.layout import FolderError, Row

TAR = "scannet_val_sampled_800_1.tar"
LIST = "scannet_val_sampled_list_800_1.txt"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of sceneXXXX_YY/{color,depth}: those of the list, where it lies in the tree, else all."""
    tree = Tree(root, TAR)
    lines = read_list(root, (LIST,), 2)
    names = tree.match("scene*/color/*.jpg") if lines is None else [str(line[0]) for line in lines]
    for number, name in enumerate(names):
        scene, _, file = name.partition("/color/")
        if not file:
            raise FolderError(f"{root / name} is not SCENE/color/FRAME.jpg; fix the list")
        frame = replace_suffix(file, ".jpg", "")
        values = None if lines is None else lines[number][1]
        yield {
            "id": f"{scene}/{frame}",
            "file_name": tree.path(name),
            "scene": scene,
            "targets": {"depth": {"path": tree.path(values or f"{scene}/depth/{frame}.png")}},
        }


SCANNET_MARIGOLD = Converter(
    name="scannet-marigold",
    title="ScanNet, 800 images of 271 scans, Marigold's layout (sceneXXXX_YY/{color,depth})",
    licence="ScanNet's terms of use (its README says CC BY-NC-SA 4.0 of the data); no redistribution",
    access="sign the terms at github.com/ScanNet/ScanNet; the sampled package is in Marigold's share",
    splits=("test",),
    targets={"depth": {"codec": "png16", "scale": 0.001, "invalid": [0], "unit": "m"}},
    rows=rows,
    header={"eval": {"protocol": "depth/marigold-ls"}},
    notes="Depth counts between 1e-3 and 10 m. In this package colour and depth have one size; ScanNet's own "
    f"export has 1296x968 and 640x480, which do not match. Without {LIST} in the tree all of it is taken.",
)
