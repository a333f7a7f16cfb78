"""NYUD-MT (as of ATRC and InvPT): NYUv2 with classes, depth, normals and boundaries, cut to 425x560."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import names, one_of, under
from twofold.data.layout import FolderError, Row
from twofold.geometry import FRAMES, Camera, convert_frame, normals_from_depth
from twofold.image import read_map

# NYUv2's 40 classes (Gupta et al. 2013), by their ids less one: 0 in the files is unlabelled.
CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture",
    "other prop",
)  # fmt: skip
_LOOKED_AT = 5  # pictures, to find the frame of the normals
_CERTAIN = 8.0  # degrees by which the right frame must beat the others


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row a line of gt_sets/{split}.txt; the frame of the normals is found by holding them against the depth."""
    listed = names(root / "gt_sets" / f"{split}.txt")
    found = [_files(root, name) for name in listed]
    frame = _frame(root, found[:_LOOKED_AT])
    for name, files in zip(listed, found, strict=True):
        targets: dict[str, dict[str, Any]] = {
            target: {"path": under(root, path)} for target, path in files.items() if target != "picture"
        }
        normals = files["normals"].suffix == ".png"
        targets["normals"] |= {"frame": frame, "codec": "png8" if normals else "npy"}
        if files["edge"].suffix == ".npy":
            targets["edge"] |= {"codec": "npy", "scale": 1.0}
        yield {"id": f"{split}/{name}", "file_name": under(root, files["picture"]), "targets": targets}


def _files(root: Path, name: str) -> dict[str, Path]:
    """The files of one picture: png as ATRC repacked them, or jpg and npy as MTI-Net had them."""
    return {
        "picture": one_of(root / "images", name, (".png", ".jpg")),
        "semantic": one_of(root / "segmentation", name, (".png",)),
        "depth": one_of(root / "depth", name, (".npy",)),
        "normals": one_of(root / "normals", name, (".png", ".npy")),
        "edge": one_of(root / "edge", name, (".png", ".npy")),
    }


def _frame(root: Path, files: list[dict[str, Path]]) -> str:
    """The frame in which the stored normals agree with the depth; FolderError when none clearly does.

    No publication says which it is. In the wrong one walls lean the wrong way by tens of degrees.
    """
    errors = {frame: [] for frame in FRAMES}
    for one in files:
        depth, normals = read_map(one["depth"]), read_map(one["normals"])
        if depth.shape[-2:] != normals.shape[-2:] or depth.shape[0] != 1 or normals.shape[0] != 3:
            raise FolderError(
                f"{one['normals']} does not fit {one['depth']}; they must be h w 3 and h w of one size"
            )
        vectors = normals / 255 * 2 - 1 if one["normals"].suffix == ".png" else normals
        expected, valid = normals_from_depth(depth.clamp(min=0), _camera(*depth.shape[-2:]))
        valid = valid & (depth > 0) & (torch.linalg.vector_norm(vectors, dim=0, keepdim=True) > 0.5)
        for frame, found in errors.items():
            found.append(_degrees(convert_frame(vectors, frame, "RUB"), expected, valid))
    said = sorted((float(torch.cat(found).median()), frame) for frame, found in errors.items())
    if not said or said[0][0] != said[0][0] or said[1][0] - said[0][0] < _CERTAIN:
        told = ", ".join(f"{frame} {degrees:.0f} degrees off" for degrees, frame in said)
        raise FolderError(f"{root / 'normals'}: no frame clearly agrees with the depth ({told})")
    return said[0][1]


def _camera(height: int, width: int) -> Camera:
    """NYUv2's colour camera about this cut of the 640x480 picture: exact enough to tell frames apart."""
    return Camera(518.86, 519.47, (width - 1) / 2, (height - 1) / 2, width, height)


def _degrees(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Angles between vectors 3 h w where `valid` (1 h w): 1-dimensional."""
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0).clamp(-1, 1)
    return torch.rad2deg(cosine.acos())[valid[0]]


NYUD_MT = Converter(
    name="nyud-mt",
    title="NYUD-MT, the multi-task cut of NYUv2 (ATRC / InvPT archive)",
    licence="NYUv2 gives none; used for research (not verified)",
    access="NYUDv2.tar.gz, linked by github.com/brdav/atrc and the repository of InvPT",
    splits=("train", "val"),
    targets={
        "semantic": {"codec": "png8", "label_offset": -1, "ignore": [0]},
        "depth": {"codec": "npy", "scale": 1.0, "kind": "z", "invalid": [0], "unit": "m"},
        "normals": {"codec": "png8", "invalid": "zero", "unit": "vector"},
        "edge": {"codec": "png8", "scale": 1 / 255},
    },
    rows=rows,
    notes="425x560: numbers on it are not those of 480x640. 40 classes, stored 0 is not valid; ASTMT scored 41 "
    "with the background, do not compare. The frame of the normals is nowhere written: it is found from the "
    "depth of the first pictures, and the conversion stops when that does not tell. Depth 0 is unknown.",
    header={"classes": list(CLASSES)},
)
