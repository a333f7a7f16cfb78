"""P3M-10k in both of its layouts, AIM-500 and Composition-1k, of a few pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trees.seg import SIZE, photo, save


def matte(seed: int, channels: int = 1) -> np.ndarray:
    """Levels 0 to 255, of one or of three equal channels."""
    levels = np.random.default_rng(seed).integers(0, 256, SIZE)
    levels[0, :3] = (0, 128, 255)
    return levels if channels == 1 else np.repeat(levels[..., None], channels, -1)


def trimap(seed: int) -> np.ndarray:
    """0 where the matte is 0, 255 where it is 255, else 128."""
    levels = matte(seed)
    return np.where(levels == 0, 0, np.where(levels == 255, 255, 128))


def _split(base: Path, image_dir: str, count: int, trimaps: bool) -> None:
    for number in range(count):
        stem = f"p_{number:08x}"
        photo(base / image_dir / f"{stem}.jpg", number)
        save(base / "mask" / f"{stem}.png", matte(number, 3 if number == 1 else 1))
        if trimaps:
            save(base / "trimap" / f"{stem}.png", trimap(number))


def p3m10k(root: Path, zipped: bool) -> Path:
    """As the authors' archive has it (`zipped`), or as their configuration wants it."""
    base = root / "P3M-10k" if zipped else root
    _split(base / "train", "blurred_image", 3, False)
    for name, code, image_dir in (
        ("P3M-500-P", "validation1", "blurred_image"),
        ("P3M-500-NP", "validation2", "original_image"),
    ):
        _split(base / "validation" / name if zipped else base / code, image_dir, 2, True)
    return root


def aim500(root: Path, nested: bool) -> Path:
    """With the folder `validation` of the authors' code (`nested`), or without, as it is handed out."""
    _split(root / "validation" if nested else root, "original", 3, True)
    record = {
        "p_00000000": {"type": "SO", "category": "animal"},
        "p_00000001": {"type": "STM", "category": "transparent"},
        "p_00000002": {"type": "NS", "category": "plant"},
    }
    (root / "aim_category_type.json").write_text(json.dumps(record))
    return root


def composition1k(root: Path, each: int) -> Path:
    """Two foregrounds, one of each folder, and as many backgrounds as the test split wants; one is small."""
    base = root / "Combined_Dataset" / "Test_set"
    for number, kind in enumerate(("Adobe-licensed images", "Other")):
        photo(base / kind / "fg" / f"boy {number}.png", number)
        save(base / kind / "alpha" / f"boy {number}.png", matte(number))
        for i in range(each):
            save(base / "Adobe-licensed images" / "trimaps" / f"boy {number}_{i}.png", trimap(number))
    names = [f"2008_{i:06d}.jpg" for i in range(2 * each)]
    for i, name in enumerate(names):
        photo(root / "backgrounds" / name, 100 + i, (5, 7) if i == 0 else (9, 13))
    (base / "test_fg_names.txt").write_text("boy 0.png\nboy 1.png\n")
    (base / "test_bg_names.txt").write_text("\n".join(names) + "\n")
    return root
