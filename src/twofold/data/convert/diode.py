"""DIODE (Vasiljevic et al. 2019): laser scans of rooms and streets, 1024x768."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list, replace_suffix
from twofold.data.layout import Row

TAR = "diode_val.tar"
_PARTS = {"val": ("indoors", "outdoor"), "val-indoors": ("indoors",), "val-outdoor": ("outdoor",)}
_LISTS = {"val": "all", "val-indoors": "indoor", "val-outdoor": "outdoor"}


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of {indoors,outdoor}/scene_*/scan_*, in the root or in its folder `val`."""
    tree = Tree(root, TAR)
    lines = read_list(root, (f"diode_val_{_LISTS[split]}_filename_list.txt",), 3)
    top = "val/" if not tree.tar and (root / "val").is_dir() else ""
    names = [n for part in _PARTS[split] for n in tree.match(f"{top}{part}/scene_*/scan_*/*.png")]
    for name in names if lines is None else [f"{top}{line[0]}" for line in lines]:
        stem = replace_suffix(name, ".png", "")
        mask = {"measured": {"path": tree.path(f"{stem}_depth_mask.npy")}}
        yield {
            "id": stem.removeprefix(top),
            "file_name": tree.path(name),
            "scene": name.removeprefix(top).split("/")[0],
            "targets": {"depth": {"path": tree.path(f"{stem}_depth.npy"), "masks": mask}},
        }


DIODE = Converter(
    name="diode",
    title="DIODE validation ({indoors,outdoor}/scene_*/scan_*)",
    licence="MIT (not verified)",
    access="direct download, diode-dataset.org: val.tar.gz, 2.6 GB, to be unpacked",
    splits=tuple(_PARTS),
    targets={"depth": {"codec": "npy", "unit": "m", "masks": {"measured": {"codec": "npy", "valid": [1]}}}},
    rows=rows,
    header={"eval": {"protocol": "depth/marigold-ls"}},
    notes="Only the mask decides which pixels are valid; predictions are clipped to 0.6 to 350 m. 325 indoors and "
    "446 outdoor: report them apart too, outdoor decides the mean. Depth along the borders of objects is off. "
    "Its normals are a separate archive whose frame is not documented, so they are not converted.",
)
