"""COCO's person keypoints, of a few people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trees.seg import photo


def points(shift: float = 0) -> list[float]:
    """17 times x, y, v: the first five visible, one hidden, the others not labelled and 0 0 0."""
    found: list[float] = []
    for i in range(17):
        found += [10 + i + shift, 20 + i, 2 if i < 5 else 1] if i < 6 else [0, 0, 0]
    return found


def annotation(id: int, image: int, **changes) -> dict:
    """One person, with every entry that COCO gives."""
    return {
        "id": id, "image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": 6,
        "keypoints": points(id % 7 / 10), "bbox": [8.5, 15.25, 20.0, 30.5], "area": 401.5,
        "segmentation": [[8.5, 15.25, 28.5, 15.25, 28.5, 45.75]], **changes,
    }  # fmt: skip


def coco(root: Path) -> Path:
    """val2017: two images, three people with points, one without, one crowd."""
    images: list[dict[str, Any]] = [
        {"id": 785, "file_name": "000000000785.jpg", "height": 48, "width": 64, "license": 4},
        {"id": 139, "file_name": "000000000139.jpg", "height": 64, "width": 48, "license": 2},
    ]
    for image in images:
        photo(root / "val2017" / image["file_name"], image["id"], (image["height"], image["width"]))
    people = [
        annotation(442619, 785),
        annotation(230831, 139),
        annotation(233201, 139),
        annotation(9, 139, num_keypoints=0, keypoints=[0] * 51),
        annotation(900100139, 139, iscrowd=1, num_keypoints=0, segmentation={"counts": [], "size": [64, 48]}),
    ]
    write(root, {"info": {}, "licenses": [], "images": images, "annotations": people, "categories": []})
    return root


def write(root: Path, data: dict) -> None:
    """The annotation file of val2017."""
    path = root / "annotations" / "person_keypoints_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def read(root: Path) -> dict:
    """What the annotation file of val2017 says."""
    return json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
