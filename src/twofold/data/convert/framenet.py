"""ScanNet's frames with FrameNet's normals (Huang et al. 2019), the training data of Bae et al. and of DSINE.

``sceneXXXX_YY/frame-NNNNNN-{color,normal,orient-mask}.png``, as FrameNet's package `scannet-frames` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from twofold.data.convert.converter import Converter
from twofold.data.convert.frames import correlation, frame_from_agreements, read_normals
from twofold.data.convert.paired import read_names
from twofold.data.convert.tree import Tree, replace_suffix
from twofold.data.layout import FolderError, Row

_SAMPLED = 40  # frames, to find the frame of the normals
_MIN_AGREEMENT = 0.2  # agreement of each axis, of which 1 is the most
_FIRST_TEST = 707  # scans of ScanNet's test set begin here
_COLOR, _NORMAL, _MASK = "-color.png", "-normal.png", "-orient-mask.png"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per frame of the split's scans: those that `{split}.txt` names, else by ScanNet's numbers of scans.

    Raises:
        FolderError: no frame, one without its normals or mask, or normals whose frame is not clear.
    """
    tree = Tree(root)
    listed = set(read_names(root / f"{split}.txt")) if (root / f"{split}.txt").is_file() else None
    found = [n for n in tree.match(f"scene*/*{_COLOR}") if _wanted(n.partition("/")[0], split, listed)]
    if not found:
        raise FolderError(f"{root} has no scene*/frame-*{_COLOR} of its split {split}; give scannet-frames")
    step = max(1, len(found) // _SAMPLED)
    frame = _frame(root, [root / replace_suffix(n, _COLOR, _NORMAL) for n in found[::step]][:_SAMPLED])
    for name in found:
        scene, _, stem = replace_suffix(name, _COLOR, "").partition("/")
        yield {
            "id": f"{scene}/{stem}",
            "file_name": name,
            "scene": scene,
            "targets": {
                "normals": {
                    "path": tree.path(replace_suffix(name, _COLOR, _NORMAL)),
                    "frame": frame,
                    "masks": {"measured": {"path": tree.path(replace_suffix(name, _COLOR, _MASK))}},
                }
            },
        }


def _wanted(scene: str, split: str, listed: set[str] | None) -> bool:
    if listed is not None:
        return scene in listed
    number = scene.removeprefix("scene").partition("_")[0]
    return number.isdecimal() and (int(number) >= _FIRST_TEST) == (split == "test")


def _frame(root: Path, paths: Sequence[Path]) -> str:
    """The frame of the stored normals, found from rooms; FolderError when none is clear.

    Inside a room a wall on the left faces right, the floor faces up, and every visible surface faces the camera.
    So x is anticorrelated with the column where it points right, y correlated with the row where it points up, and z
    is above 0 where it points to the camera.
    """
    if not all(path.is_file() for path in paths):
        missing = next(path for path in paths if not path.is_file())
        raise FolderError(f"{missing} does not exist; restore it, or remove its image")
    sides = [_known_normals(path) for path in paths]
    vectors, places = (torch.cat(side, 1) for side in zip(*sides, strict=True))
    if vectors.shape[1] < 2:
        raise FolderError(f"{root}: no normal of the first frames is known; is it the right folder?")
    agreements = (
        correlation(vectors[0], -places[0]),
        correlation(vectors[1], places[1]),
        vectors[2].sum() / vectors[2].abs().sum(),
    )
    return frame_from_agreements(agreements, _MIN_AGREEMENT, str(root))


def _known_normals(path: Path) -> tuple[Tensor, Tensor]:
    """Known normals as stored, and column and row of each from -1 to 1: float64 3 n and 2 n."""
    vectors = read_normals(path)[0].double()
    height, width = vectors.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    known = (vectors.sum(0) > -3) & ((torch.linalg.vector_norm(vectors, dim=0) - 1).abs() < 0.2)
    return vectors[:, known], torch.stack([x, y])[:, known].double()


SCANNET_FRAMENET = Converter(
    name="scannet-framenet",
    title="ScanNet's frames with FrameNet's normals (scannet-frames)",
    licence="ScanNet's terms of use (its README says CC BY-NC-SA 4.0 of the data); no redistribution",
    access="sign ScanNet's terms, then FrameNet's scannet-frames.zip (github.com/hjwdzh/FrameNet)",
    splits=("train", "test"),
    targets={
        "normals": {
            "codec": "png8",
            "invalid": "zero",
            "unit": "vector",
            "masks": {"measured": {"codec": "png8", "invalid": [0]}},
        }
    },
    rows=rows,
    notes="The frame of the normals was not available in print: it is found from the data, by where floors and walls "
    "are, and the conversion stops where that does not tell. Train is scans 0 to 706, test 707 and on, unless "
    "train.txt or test.txt in the tree names scans, one a line.",
)
