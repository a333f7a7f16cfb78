"""Cityscapes (Cordts et al. 2016): street scenes of 2048x1024 with 19 classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import first_folder, relative_path
from twofold.data.layout import FolderError, Row

# The 19 classes that are scored, in the order of their training ids, with the labelId each has in the files.
CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_IMAGE_SUFFIX = "_leftImg8bit.png"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per left image: {type}/{split}/{city}/{city}_{sequence}_{frame}_{type}, coarse for train_extra."""
    image_dir = first_folder(root / "leftImg8bit", split)
    kind = "gtCoarse" if split == "train_extra" else "gtFine"
    for path in sorted(image_dir.glob(f"*/*{_IMAGE_SUFFIX}")):
        city, stem = path.parent.name, path.name.removesuffix(_IMAGE_SUFFIX)
        if not stem.startswith(f"{city}_"):
            raise FolderError(f"{path} does not begin with its city, {city!r}; was it renamed?")
        labels = root / kind / split / city / f"{stem}_{kind}_labelIds.png"
        yield {
            "id": f"{split}/{city}/{stem}",
            "file_name": relative_path(root, path),
            "scene": city,
            "targets": {"semantic": {"path": relative_path(root, labels)}},
        }


CITYSCAPES = Converter(
    name="cityscapes",
    title="Cityscapes, the 19 classes (leftImg8bit with gtFine or gtCoarse)",
    licence="its own terms: non-commercial, no redistribution",
    access="register at cityscapes-dataset.com; leftImg8bit_trainvaltest and gtFine_trainvaltest",
    splits=("train", "val", "train_extra"),
    targets={"semantic": {"codec": "png8", "stored": list(CLASSES.values())}},
    rows=rows,
    notes="The files hold labelIds (34); ids here are the 19 training ids, everything else is not valid. The "
    "labels of the test split are dummies, so it is not converted. train_extra has coarse labels only. The "
    "car's own bonnet and the border of the rectification are unlabelled, so they are not valid either.",
    header={"classes": list(CLASSES)},
)
