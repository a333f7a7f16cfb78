"""The test sets of surface normals that DSINE (Bae and Davison 2024) published as one package, `dsine_eval`.

`<scene>/<name>_img.{png,jpg}`, `_normal.{png,exr}` and `_intrins.npy`, in folders of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list, replace_suffix
from twofold.data.layout import FolderError, Row
from twofold.image import ImageError
from twofold.image.maps import read_stored


def rows(image: str, normal: str, listed: str, root: Path, split: str) -> Iterator[Row]:
    """One row per image: those of the list, where it lies in the tree, else all."""
    tree = Tree(root)
    lines = read_list(root, (f"{listed}.txt", f"split/{listed}.txt"), 1)
    names = tree.match(f"*/*{image}") if lines is None else [str(line[0]) for line in lines]
    for name in names:
        scene, _, stem = replace_suffix(name, image, "").rpartition("/")
        matrix = intrinsics(root / tree.path(f"{scene}/{stem}_intrins.npy"))
        yield {
            "id": f"{scene}/{stem}",
            "file_name": tree.path(name),
            "scene": scene,
            "targets": {"normals": {"path": tree.path(f"{scene}/{stem}{normal}")}},
            "camera": {"K": matrix},
        }


def intrinsics(path: Path) -> list[list[float]]:
    """A 3x3 matrix in a .npy file; FolderError when it is something else."""
    try:
        matrix = read_stored(path)
    except ImageError as error:
        raise FolderError(str(error)) from None
    if matrix.shape != (3, 3) or not bool(np.isfinite(matrix).all()):
        raise FolderError(f"{path} holds {matrix.shape}, no 3x3 matrix of a camera; copy it again")
    return matrix.astype(np.float64).tolist()


def _converter(
    name: str, title: str, listed: str, notes: str, image: str, normal: str, codec: str
) -> Converter:
    how: dict[str, Any] = {"codec": codec, "frame": "LUB", "invalid": "zero", "unit": "vector"}
    licences = {
        "nyuv2": "none stated for NYUv2; used in research",
        "scannet": "ScanNet's terms of use (its README says CC BY-NC-SA 4.0 of the data); no redistribution",
        "ibims": "CC BY-NC-SA 4.0 (not verified)",
        "sintel": "images (c) Blender Foundation (www.sintel.org)",
        "vkitti": "CC BY-NC-SA 3.0 (not verified)",
    }
    return Converter(
        name=f"dsine-{name}",
        title=title,
        licence=licences[name],
        access="dsine_eval.zip, linked from github.com/baegwangbin/DSINE; give its folder " + name,
        splits=("test",),
        targets={"normals": how},
        rows=partial(rows, image, normal, listed),
        notes=f"{notes} Frame LUB; (0, 0, 0) is no normal. Scores pool all pixels of all images.".strip(),
        header={"eval": {"protocol": "normal/dsine"}},
    )


DSINE_NYUV2 = _converter(
    "nyuv2", "NYUv2 test with GeoNet's normals, DSINE's package", "test",
    "654 images in 'test'; where 'train' lies beside it without the list, both are taken.",
    "_img.png", "_normal.png", "png8",
)  # fmt: skip
DSINE_SCANNET = _converter(
    "scannet", "ScanNet with FrameNet's normals, DSINE's package", "test", "300 images.",
    "_img.png", "_normal.png", "png8",
)  # fmt: skip
DSINE_IBIMS = _converter(
    "ibims", "iBims-1 with normals, DSINE's package", "ibims",
    "100 images. Normals were fitted to the measured depth, plane by plane.",
    "_img.png", "_normal.exr", "exr",
)  # fmt: skip
DSINE_SINTEL = _converter(
    "sintel", "Sintel with normals, DSINE's package", "sintel",
    "1064 images. Normals were fitted to the depth, not rendered. Marigold's normals v1.1 trained on some.",
    "_img.png", "_normal.exr", "exr",
)  # fmt: skip
DSINE_VKITTI = _converter(
    "vkitti", "Virtual KITTI 2 with normals, DSINE's package", "vkitti",
    "1000 images. Normals were fitted to the depth, and are PNG of 16 bits a channel.",
    "_img.jpg", "_normal.png", "png16",
)  # fmt: skip
