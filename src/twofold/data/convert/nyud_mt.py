"""NYUD-MT (as of ATRC and InvPT): NYUv2 with classes, depth, normals and boundaries, cut to 425x560."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twofold.data.convert.converter import Converter
from twofold.data.convert.frames import correlation, frame_from_agreements, read_normals
from twofold.data.convert.hypersim import NYU40
from twofold.data.convert.paired import first_file, read_names, relative_path
from twofold.data.layout import FolderError, Row
from twofold.geometry import Camera, normals_from_depth
from twofold.image import read_map

# NYUv2's 40 classes, by their ids less one: 0 in the files is unlabelled.
CLASSES = NYU40
_CODECS = {0: "npy", 8: "png8", 16: "png16"}  # of normals, by the bits of a sample
_SAMPLED = 5  # images, to find the frame of the normals
_MIN_AGREEMENT = 0.3  # agreement of each axis, of which 1 is the most


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per line of gt_sets/{split}.txt; the frame of the normals is found by holding them against the depth."""
    listed = read_names(root / "gt_sets" / f"{split}.txt")
    found = [_files(root, name) for name in listed]
    frame = _frame(root, found[:_SAMPLED])
    codec = _CODECS[read_normals(found[0]["normals"])[1]]
    for name, files in zip(listed, found, strict=True):
        targets: dict[str, dict[str, Any]] = {
            target: {"path": relative_path(root, path)} for target, path in files.items() if target != "image"
        }
        targets["normals"] |= {"frame": frame, "codec": codec}
        if files["edge"].suffix == ".npy":
            targets["edge"] |= {"codec": "npy", "scale": 1.0}
        yield {
            "id": f"{split}/{name}",
            "file_name": relative_path(root, files["image"]),
            "targets": targets,
        }


def _files(root: Path, name: str) -> dict[str, Path]:
    """The files of one image: png as ATRC repacked them, or jpg and npy as MTI-Net had them."""
    return {
        "image": first_file(root / "images", name, (".png", ".jpg")),
        "semantic": first_file(root / "segmentation", name, (".png",)),
        "depth": first_file(root / "depth", name, (".npy",)),
        "normals": first_file(root / "normals", name, (".png", ".npy")),
        "edge": first_file(root / "edge", name, (".png", ".npy")),
    }


def _frame(root: Path, files: list[dict[str, Path]]) -> str:
    """The frame in which the stored normals agree with the depth; FolderError when none clearly does.

    No publication documents it. Axis by axis, because most of a room is mirror symmetric: x and y by their
    correlation with those of the depth, z by its sign, since every visible surface faces the camera.
    """
    pairs = [_vectors(one) for one in files]
    stored, expected = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
    across, down = (correlation(stored[k], expected[k]) for k in (0, 1))
    agreements = (across, down, stored[2].sign().mean())
    return frame_from_agreements(agreements, _MIN_AGREEMENT, str(root / "normals"))


def _vectors(one: dict[str, Path]) -> tuple[Tensor, Tensor]:
    """Normals as stored, and those of the depth in RUB, where both are known: float64 3 n each."""
    depth, (vectors, _) = read_map(one["depth"]), read_normals(one["normals"])
    if depth.shape[-2:] != vectors.shape[-2:] or depth.shape[0] != 1:
        raise FolderError(
            f"{one['normals']} does not fit {one['depth']}; they must be h w 3 and h w of one size"
        )
    expected, valid = normals_from_depth(depth, _camera(*depth.shape[-2:]))
    known = valid[0] & (torch.linalg.vector_norm(vectors, dim=0) > 0.5)
    return vectors[:, known].double(), expected[:, known].double()


def _camera(height: int, width: int) -> Camera:
    """NYUv2's colour camera about this cut of the 640x480 image: exact enough to tell frames apart."""
    return Camera(518.86, 519.47, (width - 1) / 2, (height - 1) / 2, width, height)


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
    "depth of the first images, and the conversion stops when that does not tell. Depth 0 is unknown.",
    header={"classes": list(CLASSES)},
)
