"""DIS5K (Qin et al. 2022): exact foreground masks of images of several megapixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import first_folder, pair_by_stem, relative_path
from twofold.data.layout import Row

SPLITS = ("DIS-TR", "DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of DIS5K/{split}/{im,gt}, or of the folder that holds DIS5K."""
    base = first_folder(root, split, f"DIS5K/{split}")
    for stem, image, mask in pair_by_stem(base / "im", base / "gt"):
        yield {
            "id": f"{split}/{stem}",
            "file_name": relative_path(root, image),
            "targets": {"mask": {"path": relative_path(root, mask)}},
        }


DIS5K = Converter(
    name="dis5k",
    title="DIS5K, dichotomous segmentation",
    licence="its own terms: non-commercial research, no redistribution even of processed data",
    access="accept the terms at the authors' page (github.com/xuebinqin/DIS); DIS5K.zip",
    splits=SPLITS,
    targets={"mask": {"codec": "png8", "threshold": 128}},
    rows=rows,
    notes="Masks have smoothed edges: foreground is above 128. Scores are taken at native size, and DIS-VD and "
    "DIS-TE1 to DIS-TE4 (ordered by complexity) are reported one by one. Names hold '#': escape it in URLs.",
    header={"image": {"exif": "ignore"}},
)
