"""COCO person keypoints (Lin et al. 2014): 17 points of every labelled person, one row a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import first_folder, relative_path
from twofold.data.layout import FolderError, Row
from twofold.io import FormatError, parse_json

POINTS = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle",
    "right ankle",
)  # fmt: skip


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per person with at least one labelled point; crowds and people without points are left out.

    `points` are [x, y, v] in COCO's own pixels, as stored: v is 0 not labelled, 1 hidden, 2 visible. `box` is
    [x, y, width, height], `area` that of the outline (the scale of a score, not the box's).
    """
    path = root / "annotations" / f"person_keypoints_{split}.json"
    image_dir = first_folder(root, split, f"images/{split}")
    data = _read(path)
    images = {image["id"]: image for image in data["images"]}
    for one in sorted(data["annotations"], key=lambda a: (a["image_id"], a["id"])):
        where = f"{path}: annotation {one['id']}"
        if one["id"] < 1:
            raise FolderError(
                f"{where}: ids begin at 1, 0 means 'unmatched' when scores are computed; renumber"
            )
        if one.get("iscrowd") or not one.get("num_keypoints"):
            continue
        image = images.get(one["image_id"])
        if image is None:
            raise FolderError(f"{where} is of the image {one['image_id']}, which the file does not list")
        yield {
            "id": f"{split}/{one['image_id']:012d}/{one['id']}",
            "file_name": relative_path(root, image_dir / image["file_name"]),
            "size": [image["height"], image["width"]],
            "targets": {
                "keypoints": {
                    "points": _points(one["keypoints"], where),
                    "box": [float(x) for x in one["bbox"]],
                    "area": float(one["area"]),
                    "ann_id": one["id"],
                    "image_id": one["image_id"],
                }
            },
        }


def _points(flat: list[float], where: str) -> list[list[float]]:
    """17 times [x, y, v] of COCO's flat list of 51 numbers."""
    if len(flat) != 3 * len(POINTS):
        raise FolderError(f"{where} has {len(flat)} numbers as keypoints; a person has {3 * len(POINTS)}")
    if not set(flat[2::3]) <= {0, 1, 2}:
        raise FolderError(f"{where} has points that are neither 0 unlabelled, 1 hidden nor 2 visible")
    return [[float(flat[i]), float(flat[i + 1]), int(flat[i + 2])] for i in range(0, len(flat), 3)]


def _read(path: Path) -> dict[str, Any]:
    """The annotation file; FolderError when it is missing or not what COCO publishes."""
    if not path.is_file():
        raise FolderError(f"{path} does not exist; unpack annotations_trainval2017.zip beside the images")
    try:
        data = parse_json(path.read_bytes(), str(path))
    except FormatError as error:
        raise FolderError(f"{error}; download it again") from None
    expected = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("id", "image_id", "keypoints", "bbox", "area"),
    }
    for key, entries in expected.items():
        listed = data.get(key) if isinstance(data, dict) else None
        if not isinstance(listed, list):
            raise FolderError(
                f"{path} has no list {key!r}; is it person_keypoints, not another file of COCO?"
            )
        for one in listed:
            missing = [e for e in entries if not isinstance(one, dict) or e not in one]
            if missing:
                raise FolderError(f"{path}: one of its {key} has no {missing[0]!r}; is it person_keypoints?")
    return data


COCO_KEYPOINTS = Converter(
    name="coco-keypoints",
    title="COCO 2017, person keypoints",
    licence="annotations CC BY 4.0, images under the terms of Flickr (neither verified)",
    access="direct download, cocodataset.org: train2017.zip, val2017.zip, annotations_trainval2017.zip",
    splits=("train2017", "val2017"),
    targets={"keypoints": {"unit": "px"}},
    rows=rows,
    notes="One row per person, so an image comes several times. Numbers are COCO's, unchanged: a point is the "
    "number of its pixel counted from 0, so 0 is the middle of the first; a box is measured from the image's "
    "edges. Half a pixel the wrong way costs AP75. Published scores use detected boxes, these are the true ones.",
    header={"keypoints": list(POINTS), "image": {"exif": "ignore"}},
)
