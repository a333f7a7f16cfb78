"""NYUv2 (Silberman et al. 2012) in the one file its authors publish, nyu_depth_v2_labeled.mat, read in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.layout import FolderError, Row
from twofold.image import ImageError
from twofold.image.maps import read_stored, stack_size

FILE, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image; ids are the 0-based places in the file, as in Bae's and DSINE's packages."""
    try:
        count = stack_size(root / FILE, key="rawDepths")
        if split == "all":
            chosen = list(range(count))
        else:
            # MATLAB counts from 1.
            found = read_stored(root / SPLITS, key=f"{split}Ndxs")
            chosen = [int(n) - 1 for n in found.flatten()]
    except ImageError as error:
        raise FolderError(str(error)) from None
    for index in chosen:
        if not 0 <= index < count:
            raise FolderError(f"{root / SPLITS} names image {index + 1} of {count}; is it that of {FILE}?")
        yield {
            "id": f"{index:06d}",
            "file_name": FILE,
            "image": {"index": index},
            "targets": {"depth": {"path": FILE, "index": index}},
        }


NYUV2_MAT = Converter(
    name="nyuv2-mat",
    title="NYUv2 labelled, raw depth, the authors' one file (nyu_depth_v2_labeled.mat)",
    licence="none stated by NYU; used in research",
    access="direct download, cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html: the labelled data set, 2.8 GB, and its "
    "splits.mat",
    splits=("train", "test", "all"),
    targets={"depth": {"codec": "mat", "key": "rawDepths", "invalid": [0], "unit": "m"}},
    rows=rows,
    header={
        "image": {"codec": "mat", "key": "images", "scale": 1 / 255},
        "eval": {"protocol": "depth/marigold-ls"},
    },
    notes="1449 images, of which splits.mat (in the same folder) makes 795 / 654. Depth is the sensor's, with "
    "holes; the filled one of the file is not read. Images have a white border of some 10 pixels.",
)
