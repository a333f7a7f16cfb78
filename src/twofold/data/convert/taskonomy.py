"""Taskonomy (Zamir et al. 2018): views of scanned buildings, 512x512."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_table, replace_suffix
from twofold.data.layout import FolderError, Row

_RGB, _DEPTH = "_domain_rgb.png", "_domain_depth_zbuffer.png"
# {building}/{domain}/FILE, {domain}/{building}/FILE, and what omnidata's tools make of the latter.
_PLACES = ("{building}/{domain}/", "{domain}/{building}/", "{domain}/taskonomy/{building}/")


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per view with z-buffer depth; the splits are by building, of a table in the tree."""
    tree = Tree(root)
    chosen = None if split == "all" else _buildings(root, split)
    for place in _PLACES:
        for name in tree.match(f"{place.format(building='*', domain='rgb')}point_*_view_*{_RGB}"):
            view = replace_suffix(name.rpartition("/")[2], _RGB, "")
            building = name.split("/")[place.split("/").index("{building}")]
            if chosen is None or building in chosen:
                depth = f"{place.format(building=building, domain='depth_zbuffer')}{view}{_DEPTH}"
                yield {
                    "id": f"{building}/{view}",
                    "file_name": name,
                    "scene": building,
                    "targets": {"depth": {"path": tree.path(depth)}},
                    "provenance": {"origin": "rendered"},
                }


def _buildings(root: Path, split: str) -> set[str]:
    """The buildings of a split, by the one table train_val_test_{tiny,medium,full,fullplus}.csv of the tree."""
    tables = sorted([*root.glob("train_val_test_*.csv"), *root.glob("splits_taskonomy/train_val_test_*.csv")])
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise FolderError(
            f"{root} must hold one train_val_test_*.csv for {split!r} (found: {found}); or take 'all'"
        )
    return {entry["id"] for entry in read_table(tables[0], ("id", split)) if entry[split].strip() == "1"}


TASKONOMY = Converter(
    name="taskonomy",
    title="Taskonomy, z-buffer depth (rgb, depth_zbuffer)",
    licence="its own terms, non-commercial (not verified)",
    access="sign the terms; downloaded by omnidata-tools (`omnitools.download`)",
    splits=("train", "val", "test", "all"),
    targets={"depth": {"codec": "png16", "scale": 1 / 512, "invalid": [65535], "unit": "m"}},
    rows=rows,
    notes="65535 is missing (holes of the scan, windows), not sky. depth_zbuffer is z; depth_euclidean is another "
    "folder. Splits are by building and need one train_val_test_*.csv in the tree. The images are of scanned "
    "meshes. Normals are not converted: their frame must be verified file by file.",
)
