"""ADE20K as the scene parsing benchmark has it (Zhou et al. 2017): 150 classes of rooms, streets and nature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import first_folder, pair_by_stem, relative_path
from twofold.data.layout import FolderError, Row

# By their ids less one: 0 in the files is everything else. The first of the names that objectInfo150 gives.
CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane",
    "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
    "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
    "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
    "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
    "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of ADEChallengeData2016, or of the folder that holds it."""
    base = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
    image_dir, maps = first_folder(base, f"images/{split}"), first_folder(base, f"annotations/{split}")
    scenes = _scenes(base / "sceneCategories.txt")
    for stem, image, labels in pair_by_stem(image_dir, maps):
        if not stem.startswith("ADE_"):
            raise FolderError(f"{image} is not named ADE_{split}_N; is this the scene parsing benchmark?")
        row = {
            "id": f"{split}/{stem}",
            "file_name": relative_path(root, image),
            "targets": {"semantic": {"path": relative_path(root, labels)}},
        }
        yield row | ({"scene": scenes[stem]} if stem in scenes else {})


def _scenes(path: Path) -> dict[str, str]:
    """The kind of scene of each image, 'ADE_val_00000001 bathroom' a line; {} without the file."""
    if not path.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {parts[0]: parts[1] for parts in lines if len(parts) == 2}


ADE20K = Converter(
    name="ade20k",
    title="ADE20K, scene parsing benchmark (ADEChallengeData2016)",
    licence="annotations BSD-3-Clause, images for non-commercial research (neither verified)",
    access="direct download, sceneparsing.csail.mit.edu: ADEChallengeData2016.zip",
    splits=("training", "validation"),
    targets={"semantic": {"codec": "png8", "label_offset": -1, "ignore": [0]}},
    rows=rows,
    notes="Stored 1 to 150 become ids 0 to 149; stored 0 (everything else) is not valid. Not the full ADE20K, "
    "which codes 3,000 classes in red and green. Some images are grey or CMYK; they are read as RGB.",
    header={"classes": list(CLASSES), "image": {"exif": "ignore"}},
)
