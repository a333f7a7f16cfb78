"""Cityscapes, ADE20K and DIS5K as they are on disk, of a few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (8, 12)


def save(path: Path, array: np.ndarray, **options) -> Path:
    """An 8-bit image; the suffix says of which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path, **options)
    return path


def photo(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    """An image of noise, of any mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def ids(seed: int, most: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Random ids from 0 to `most`."""
    return np.random.default_rng(seed).integers(0, most + 1, size)


def cityscapes(root: Path) -> Path:
    """Two cities of train, one of val, one coarse; labelIds from 0 to 33, with polygons and colours beside them."""
    for split, city, kind in (
        ("train", "aachen", "gtFine"),
        ("train", "bochum", "gtFine"),
        ("val", "frankfurt", "gtFine"),
        ("train_extra", "augsburg", "gtCoarse"),
    ):
        for frame in (19, 20):
            stem = f"{city}_000000_0000{frame}"
            photo(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", frame)
            base = root / kind / split / city
            save(base / f"{stem}_{kind}_labelIds.png", ids(frame, 33))
            save(base / f"{stem}_{kind}_color.png", np.zeros((*SIZE, 4)))
            (base / f"{stem}_{kind}_polygons.json").write_text("{}")
    return root


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016: three images a split, one of them grey, one CMYK; labels 0 to 150."""
    base = root / "ADEChallengeData2016"
    scenes = []
    for split, short in (("training", "train"), ("validation", "val")):
        for number, mode in ((1, "RGB"), (2, "L"), (3, "CMYK")):
            stem = f"ADE_{short}_{number:08d}"
            photo(base / "images" / split / f"{stem}.jpg", number, mode=mode)
            save(base / "annotations" / split / f"{stem}.png", ids(number, 150))
            scenes.append(f"{stem} living_room\n")
    (base / "sceneCategories.txt").write_text("".join(scenes))
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return root


def dis5k(root: Path) -> Path:
    """DIS5K: names with '#', masks of 0 and 255 with smoothed edges, one of them stored as RGB."""
    for split in ("DIS-TR", "DIS-VD", "DIS-TE1"):
        for number in (1, 2):
            stem = f"{number}#Accessories#1#Bag#25284{number}"
            photo(root / "DIS5K" / split / "im" / f"{stem}.jpg", number)
            mask = np.zeros(SIZE)
            mask[2:6, 3:9], mask[2, 3:9], mask[5, 3:9] = 255, 128, 129
            mask = np.repeat(mask[..., None], 3, -1) if number == 2 else mask
            save(root / "DIS5K" / split / "gt" / f"{stem}.png", mask)
    return root
