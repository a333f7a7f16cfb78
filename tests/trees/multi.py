"""NYUD-MT and PASCAL_MT, of a few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.io import savemat

from trees.seg import photo, save
from twofold.geometry import Camera, convert_frame, normals_from_depth

NYU = (60, 80)


def depth(seed: int) -> np.ndarray:
    """A tilted wall with a ball before it, metres; a hole of zeros."""
    y, x = np.mgrid[: NYU[0], : NYU[1]] / np.array(NYU)[:, None, None] - 0.5
    z = 3 + (1.5 + 0.2 * seed) * x + 0.8 * y
    ball = 0.09 - x**2 - y**2
    z = np.where(ball > 0, 2.2 - np.sqrt(np.maximum(ball, 0)) * 1.5, z)
    z[:4, :4] = 0
    return z.astype(np.float32)


def nyud_mt(root: Path, frame: str = "LUB", mti: bool = False) -> Path:
    """png maps as ATRC repacked them, or jpg images with npy normals and edges as MTI-Net had them (`mti`)."""
    listed = {"train": ["1", "2"], "val": ["3"]}
    (root / "gt_sets").mkdir(parents=True)
    for split, stems in listed.items():
        (root / "gt_sets" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            _nyu_one(root, stem, frame, mti)
    return root


def _nyu_one(root: Path, stem: str, frame: str, mti: bool) -> None:
    seed = int(stem)
    photo(root / "images" / f"{stem}.{'jpg' if mti else 'png'}", seed, NYU)
    save(root / "segmentation" / f"{stem}.png", np.random.default_rng(seed).integers(0, 41, NYU))
    z = depth(seed)
    # The focal length of the real camera at this width, so that what is tilted looks tilted.
    camera = Camera(518.86, 519.47, (NYU[1] - 1) / 2, (NYU[0] - 1) / 2, NYU[1], NYU[0])
    normals, valid = normals_from_depth(torch.from_numpy(z)[None], camera)
    vectors = convert_frame(normals, "RUB", frame).permute(1, 2, 0).numpy()
    edges = np.zeros(NYU)
    edges[10], edges[:, 20] = 255, 100
    for folder in ("depth", "normals", "edge"):
        (root / folder).mkdir(exist_ok=True)
    np.save(root / "depth" / f"{stem}.npy", z)
    if mti:
        np.save(root / "normals" / f"{stem}.npy", vectors.astype(np.float32))
        np.save(root / "edge" / f"{stem}.npy", (edges / 255).astype(np.float32))
    else:
        levels = np.where(valid[0].numpy()[..., None], np.rint((vectors + 1) / 2 * 255), 0)
        save(root / "normals" / f"{stem}.png", levels)
        save(root / "edge" / f"{stem}.png", edges)


PASCAL = (20, 30)
# Classes of PASCAL-Context: wall, person, sky.
WALL, PERSON, SKY = 440, 284, 360


def pascal_mt(root: Path) -> Path:
    """Two images of train: one with two people, whose parts overlap, one without and with maps of another size."""
    (root / "ImageSets" / "Context").mkdir(parents=True)
    (root / "ImageSets" / "Context" / "train.txt").write_text("2008_000002\n2008_000003\n")
    _pascal_one(root, "2008_000002", people=True)
    _pascal_one(root, "2008_000003", people=False)
    return root


def _pascal_one(root: Path, name: str, people: bool) -> None:
    photo(root / "JPEGImages" / f"{name}.jpg", len(name), PASCAL)
    classes = np.zeros(PASCAL)
    classes[5:15, 10:20], classes[0] = (15 if people else 12), 255
    if people:
        save(root / "semseg" / "VOC12" / f"{name}.png", classes)
        # The other annotation is there too, and loses.
        save(root / "semseg" / "pascal-context" / f"{name}.png", np.full(PASCAL, 7))
    else:
        save(root / "semseg" / "pascal-context" / f"{name}.png", classes)
    labels = np.full(PASCAL, WALL, dtype=np.uint16)
    labels[:, 15:], labels[12:, :] = SKY, PERSON
    (root / "pascal-context" / "trainval").mkdir(parents=True, exist_ok=True)
    savemat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": labels})
    half = (PASCAL[0] // 2, PASCAL[1] // 2)
    size = PASCAL if people else half
    normals = np.zeros((*size, 3))
    normals[:] = (128, 128, 255)
    save(root / "normals_distill" / f"{name}.png", normals)
    saliency = np.zeros(size)
    saliency[: size[0] // 2], saliency[0, 0], saliency[0, 1] = 255, 127, 128
    save(root / "sal_distill" / f"{name}.png", saliency)
    (root / "human_parts").mkdir(exist_ok=True)
    objects = [_object("dog", 12, (0, 0, 4, 4), [("head", (0, 0, 2, 2))])]
    if people:
        objects.append(
            _object("person", 15, (5, 10, 15, 15), [("hair", (5, 10, 8, 15)), ("luarm", (8, 10, 12, 15))])
        )
        objects.append(_object("person", 15, (10, 10, 15, 20), [("rfoot", (11, 10, 14, 20))]))
        objects.append(_object("person", 15, (0, 0, 2, 2), []))
    savemat(
        root / "human_parts" / f"{name}.mat",
        {"anno": _records(("imname", "objects"), [(name, _row(objects))])},
    )


def _box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(PASCAL, dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def _object(name: str, number: int, box: tuple, parts: list) -> tuple:
    found = _records(("part_name", "mask"), [(part, _box(*where)) for part, where in parts])
    return name, number, _box(*box), (found if parts else np.zeros((0, 0)))


def _row(objects: list[tuple]) -> np.ndarray:
    return _records(("class", "class_ind", "mask", "parts"), objects)


def _records(fields: tuple[str, ...], rows: list[tuple]) -> np.ndarray:
    """A Matlab struct array of 1 x n."""
    found = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        for field, value in zip(fields, row, strict=True):
            found[0, i][field] = value
    return found
