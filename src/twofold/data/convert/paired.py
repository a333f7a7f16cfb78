"""Helpers for common layouts: images in one folder, targets of the same name in others, lists of names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from twofold.data.layout import FolderError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def first_folder(root: Path, *choices: str) -> Path:
    """The first existing folder of `choices` below `root`; FolderError when there is none."""
    found = next((root / choice for choice in choices if (root / choice).is_dir()), None)
    if found is None:
        raise FolderError(f"{root} has no folder {' or '.join(choices)}; pass the folder that holds it")
    return found


def by_stem(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """The files of `folder` with these suffixes by stem, sorted, without hidden files.

    FolderError when the folder is missing, or two files have the same stem.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} does not exist; unpack the whole data set, or check the path")
    expected, found = tuple(suffixes), {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or suffix.lower() not in expected:
            continue
        if stem in found:
            raise FolderError(f"{folder} has both {found[stem].name} and {name}; remove one")
        found[stem] = folder / name
    return found


def pair_by_stem(
    image_dir: Path, targets: Path, suffixes: Iterable[str] = (".png",)
) -> list[tuple[str, Path, Path]]:
    """(stem, image, target) of two folders, paired by stem; FolderError for a file without its partner."""
    images, maps = by_stem(image_dir), by_stem(targets, suffixes)
    for stem in images:
        if stem not in maps:
            raise FolderError(f"{images[stem]} has no partner in {targets}; restore it, or remove the image")
    for stem in maps:
        if stem not in images:
            raise FolderError(f"{maps[stem]} has no image in {image_dir}; restore it, or remove the map")
    return [(stem, images[stem], maps[stem]) for stem in images]


def read_names(path: Path) -> list[str]:
    """The lines of a list of names, which may contain spaces; FolderError when it is missing or empty."""
    if not path.is_file():
        raise FolderError(f"{path} does not exist; it is the list of the split")
    found = [line.rstrip("\r") for line in path.read_text(encoding="utf-8").split("\n")]
    found = [line for line in found if line.strip()]
    if not found:
        raise FolderError(f"{path} is empty; copy or download it again")
    return found


def first_file(folder: Path, stem: str, suffixes: Iterable[str]) -> Path:
    """The first existing file `stem` + suffix in `folder`; FolderError when there is none."""
    tried = [folder / f"{stem}{suffix}" for suffix in suffixes]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise FolderError(f"{' or '.join(map(str, tried))} does not exist; restore it")
    return found


def relative_path(root: Path, path: Path) -> str:
    """The path for a row: relative to `root`, with '/'."""
    return path.relative_to(root).as_posix()
